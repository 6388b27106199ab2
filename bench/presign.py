"""Prints the version of boto3 and the microseconds it takes for one presigned GET: the median of some rounds."""
import statistics
import sys
import time

import boto3
from botocore.config import Config

count, rounds, region, bucket, filename = int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:6]
client = boto3.client("s3", region_name=region, config=Config(signature_version="s3v4"))


def each():
    began = time.perf_counter()
    for at in range(count):
        client.generate_presigned_url(
            "get_object",
            Params={
                "Bucket": bucket,
                "Key": f"acme/00000000-0000-0000-0000-000000000001/{at:064x}/{at:032x}",
                "ResponseContentDisposition": f'attachment; filename="{filename}"',
            },
            ExpiresIn=3600,
        )
    return (time.perf_counter() - began) * 1e6 / count


print(boto3.__version__, statistics.median(each() for _ in range(rounds)))
