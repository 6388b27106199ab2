//! Inputs without a guide: pieces of the languages that are parsed here, put together and spoilt at random. A seed gives
//! the same inputs again.

/// What means something somewhere.
const PIECES: &[&str] = &[
    "https://",
    "http://",
    "s3.example.com",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "localhost",
    "127.0.0.1",
    "0x7f.1",
    ":443",
    ":*",
    ":99999",
    "*.",
    "*",
    "@",
    "?",
    "#",
    "..",
    "../",
    "./",
    "/",
    "//",
    "\\",
    "%2e%2e%2f",
    "%00",
    "%0d%0a",
    "%",
    "\r\n",
    "\r\n\r\n",
    "\n",
    "\0",
    "\u{7f}",
    "\u{85}",
    "\u{2028}",
    "\u{202e}",
    "\u{feff}",
    "e\u{301}",
    "é",
    "😀",
    "ﬁ",
    "İ",
    " ",
    "\t",
    "\"",
    "'",
    "\\\"",
    ";",
    "; charset=utf-8",
    "; a=\"b;c\"",
    "=",
    ",",
    "image/png",
    "text/plain",
    "application/json",
    "*/*",
    "image/*",
    "a",
    "A",
    "0",
    "-",
    "_",
    ".",
    "~",
    "xn--",
    "-s3alias",
    "staging",
    "scratch",
    "undeclared",
    "00112233-4455-6677-8899-aabbccddeeff",
    "00112233445566778899aabbccddeeff",
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
    "=-3",
    "18446744073709551616",
    "-1",
    "1e9",
    "GET",
    "PUT",
    "POST",
    "DELETE",
    "HEAD",
    "OPTIONS",
    " HTTP/1.1\r\n",
    "Host: x\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 18446744073709551615\r\n",
    "Transfer-Encoding: chunked\r\n",
    "5\r\nhello\r\n0\r\n\r\n",
    "fffffffffffffffff\r\n",
    "Expect: 100-continue\r\n",
    "Range: bytes=0-,5-\r\n",
    "Content-Type: multipart/form-data; boundary=xyz\r\n",
    "--xyz\r\n",
    "--xyz--\r\n",
    "Content-Disposition: form-data; name=\"key\"\r\n\r\n",
    "Content-Disposition: form-data; name=\"policy\"\r\n\r\n",
    "Content-Disposition: form-data; name=\"file\"; filename=\"../../x\"\r\n\r\n",
    "x-amz-copy-source: ",
    "x-amz-content-sha256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD\r\n",
    "x-amz-decoded-content-length: 3\r\n",
    "Authorization: AWS4-HMAC-SHA256 Credential=a/20260101/local/s3/aws4_request, SignedHeaders=host, Signature=00\r\n",
    "?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=a%2F20260101%2Flocal%2Fs3%2Faws4_request&X-Amz-Date=20260101T000000Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature=00",
    "uploads",
    "uploadId",
    "partNumber",
    "list-type",
    "delete",
    "cors",
    "policy",
    "lifecycle",
    "versioning",
    "acl",
    "<?xml version=\"1.0\"?>",
    "<!DOCTYPE a [<!ENTITY b SYSTEM \"file:///etc/passwd\">]>",
    "&b;",
    "&lt;",
    "&#0;",
    "<![CDATA[",
    "]]>",
    "<Delete><Object><Key>",
    "</Key></Object></Delete>",
    "<CORSConfiguration><CORSRule><AllowedOrigin>*</AllowedOrigin>",
    "<AllowedMethod>PUT</AllowedMethod></CORSRule></CORSConfiguration>",
    "<LifecycleConfiguration><Rule>",
    "<Expiration><Days>1</Days></Expiration>",
    "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>",
    "</ETag></Part></CompleteMultipartUpload>",
    "{\"Version\":\"2012-10-17\",\"Statement\":[{\"Effect\":\"Allow\",\"Principal\":\"*\",\"Action\":\"s3:GetObject\",\"Resource\":\"arn:aws:s3:::bucket/*\"}]}",
    "{\"expiration\":\"2999-01-01T00:00:00Z\",\"conditions\":[[\"content-length-range\",1,10]]}",
    "[[[[[[[[[[",
    "{{{{",
    "%PDF-1.7",
    "PK\u{3}\u{4}",
    "GIF89a",
    "<svg",
    "<html",
    "#!/bin/sh",
    "\u{1}\u{2}",
];

/// A source of inputs: SplitMix64, whose whole state is the seed.
pub struct Generator(u64);

impl Generator {
    /// The same seed gives the same inputs.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.number() % bound as u64) as usize
    }

    /// The next input, of some bytes to some thousands.
    pub fn input(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..self.below(14) {
            match self.below(8) {
                // Lengths and choices of structured targets.
                0 | 1 => bytes.push((self.number() % 40) as u8),
                2 => bytes.extend((0..self.below(6)).map(|_| 0_u8).collect::<Vec<_>>()),
                3 => {
                    let count = self.below(12);
                    bytes.extend((0..count).map(|_| self.number() as u8).collect::<Vec<_>>());
                }
                4 => {
                    let letter = b'a' + (self.number() % 26) as u8;
                    bytes.extend(std::iter::repeat_n(letter, self.below(300)));
                }
                _ => {
                    let piece = PIECES[self.below(PIECES.len())].as_bytes();
                    // With its length before it, as structured targets read a text.
                    if self.below(2) == 0 {
                        bytes.push(piece.len().min(255) as u8);
                    }
                    bytes.extend_from_slice(piece);
                }
            }
        }
        for _ in 0..self.below(3) {
            if bytes.is_empty() {
                break;
            }
            let at = self.below(bytes.len());
            match self.below(3) {
                0 => bytes[at] ^= 1 << self.below(8),
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, self.number() as u8),
            }
        }
        bytes
    }
}
