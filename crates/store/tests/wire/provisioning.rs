//! Provisioning against stores that answer in every way they do.

use std::collections::HashMap;
use std::sync::Mutex;

use pg_storage_core::origin::Origin;
use pg_storage_core::policy::Access;
use pg_storage_store::provision::{Outcome, Plan, Report, provision};
use pg_storage_store::{ErrorKind, PublicAccessBlock, Store as _, inspect};
use serde_json::json;

use crate::canned::{Reply, Server};

fn plan(access: Access) -> Plan {
    Plan {
        bucket: "b".to_owned(),
        access,
        create: true,
        configure: true,
        origins: vec![Origin::parse("https://app.example.com").unwrap()],
        key_prefix: String::new(),
        versioning: false,
    }
}

/// A store whose answers to a request line are used up one after another, the last one for ever; everything else
/// succeeds.
async fn scripted(answers: &[(&str, &[(u16, &str)])]) -> Server {
    let script: HashMap<String, Vec<(u16, String)>> = answers
        .iter()
        .map(|(line, answers)| {
            let answers = answers.iter().rev().map(|(status, body)| (*status, (*body).to_owned())).collect();
            ((*line).to_owned(), answers)
        })
        .collect();
    let script = Mutex::new(script);
    Server::start(move |request| {
        let mut script = script.lock().unwrap();
        let Some(answers) = script.get_mut(&request.line()) else { return Reply::new(200) };
        let (status, body) = if answers.len() > 1 { answers.pop().unwrap() } else { answers[0].clone() };
        if body.starts_with('<') { Reply::new(status).body(body) } else { Reply::error(status, &body) }
    })
    .await
}

fn outcomes(report: &Report) -> Vec<(&str, &str)> {
    let label = |outcome: &Outcome| match outcome {
        Outcome::Applied => "applied",
        Outcome::Skipped { .. } => "skipped",
        Outcome::Failed { .. } => "failed",
    };
    report.steps.iter().map(|step| (step.name, label(&step.outcome))).collect()
}

#[tokio::test]
async fn a_private_bucket_is_closed_before_anything_else() {
    let server = scripted(&[]).await;
    let report = provision(&server.store(), &plan(Access::Private)).await;
    assert_eq!(
        server.lines(),
        [
            "PUT /b",
            "GET /b?publicAccessBlock",
            "PUT /b?publicAccessBlock",
            "PUT /b/scratch/writable",
            "POST /b?delete",
            "DELETE /b?policy",
            "PUT /b?cors",
            "PUT /b?lifecycle",
        ]
    );
    assert_eq!(
        serde_json::to_value(&report).unwrap(),
        json!([
            {"step": "create", "outcome": "applied"},
            {"step": "public_access_block", "outcome": "applied"},
            {"step": "policy", "outcome": "applied"},
            {"step": "cors", "outcome": "applied"},
            {"step": "versioning", "outcome": "skipped", "reason": "not asked for"},
            {"step": "lifecycle", "outcome": "applied"},
        ])
    );
    assert!(report.failure().is_none());
    let block = String::from_utf8(server.requests()[2].body.clone()).unwrap();
    assert_eq!(block.matches("true").count(), 4, "{block}");
}

#[tokio::test]
async fn a_public_bucket_allows_reading_by_policy_only() {
    let server = scripted(&[]).await;
    let public = Plan { versioning: true, key_prefix: "p/".to_owned(), ..plan(Access::Public) };
    assert!(provision(&server.store(), &public).await.failure().is_none());
    assert_eq!(
        server.lines(),
        [
            "PUT /b",
            "GET /b?publicAccessBlock",
            "PUT /b?publicAccessBlock",
            "PUT /b/p/scratch/writable",
            "POST /b?delete",
            "PUT /b?policy",
            "PUT /b?cors",
            "PUT /b?versioning",
            "PUT /b?lifecycle",
        ]
    );
    let bodies: Vec<String> =
        server.requests().iter().map(|r| String::from_utf8(r.body.clone()).unwrap()).collect();
    assert!(bodies[2].contains("<BlockPublicPolicy>false</BlockPublicPolicy>"), "{}", bodies[2]);
    assert!(bodies[2].contains("<BlockPublicAcls>true</BlockPublicAcls>"), "{}", bodies[2]);
    assert!(bodies[5].contains("arn:aws:s3:::b/p/*"), "{}", bodies[5]);
}

#[tokio::test]
async fn a_block_that_stops_every_put_is_loosened_only_where_that_helps() {
    for access in [Access::Private, Access::Public] {
        for helps in [true, false] {
            let then = if helps { (200, "<x/>") } else { (403, "AccessDenied") };
            let answers = [(403, "AccessDenied"), then];
            let server = scripted(&[("PUT /b/scratch/writable", &answers)]).await;
            let report = provision(&server.store(), &plan(access)).await;
            assert!(report.failure().is_none(), "{report:?}");
            let requests = server.requests();
            let blocks = requests.iter().filter(|request| request.line() == "PUT /b?publicAccessBlock");
            let forbids_acls: Vec<bool> = blocks
                .map(|request| String::from_utf8(request.body.clone()).unwrap())
                .inspect(|body| assert!(body.contains("<IgnorePublicAcls>true</IgnorePublicAcls>"), "{body}"))
                .map(|body| body.contains("<BlockPublicAcls>true</BlockPublicAcls>"))
                .collect();
            assert_eq!(forbids_acls, if helps { vec![true, false] } else { vec![true, false, true] });
        }
    }
    // Once it is loosened nobody's uploads are refused again; what is open is closed.
    for (switches, changes) in [([false, true, true, true], 0), ([false, true, false, false], 1)] {
        let names = ["BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"];
        let found: String =
            names.iter().zip(switches).map(|(name, is_on)| format!("<{name}>{is_on}</{name}>")).collect();
        let found = format!("<PublicAccessBlockConfiguration>{found}</PublicAccessBlockConfiguration>");
        let server = scripted(&[("GET /b?publicAccessBlock", &[(200, &found)])]).await;
        assert!(provision(&server.store(), &plan(Access::Private)).await.failure().is_none());
        let blocks = server.lines().into_iter().filter(|line| line == "PUT /b?publicAccessBlock").count();
        assert_eq!(blocks, changes, "{found}");
    }
    // Other trouble than a refusal says nothing about the block.
    let server = scripted(&[("PUT /b/scratch/writable", &[(500, "InternalError")])]).await;
    provision(&server.store(), &plan(Access::Private)).await;
    let blocks = server.lines().into_iter().filter(|line| line == "PUT /b?publicAccessBlock").count();
    assert_eq!(blocks, 1);
}

#[tokio::test]
async fn a_conflict_is_decided_by_looking() {
    let listed =
        "<ListAllMyBucketsResult><Buckets><Bucket><Name>b</Name></Bucket></Buckets></ListAllMyBucketsResult>";
    let others = "<ListAllMyBucketsResult><Buckets><Bucket><Name>bb</Name></Bucket></Buckets></ListAllMyBucketsResult>";
    // (create says, HEAD says, our list says) and whether the bucket is ours.
    let cases = [
        ("BucketAlreadyOwnedByYou", 200, (200, others), true),
        ("BucketAlreadyOwnedByYou", 403, (200, listed), false),
        ("BucketAlreadyExists", 403, (200, listed), false),
        ("BucketAlreadyExists", 200, (200, listed), true),
        // Somebody else's bucket that everybody may list.
        ("BucketAlreadyExists", 200, (200, others), false),
        ("BucketAlreadyExists", 200, (403, "AccessDenied"), false),
        // Somebody else's, in another region.
        ("BucketAlreadyExists", 301, (200, others), false),
        ("BucketAlreadyExists", 400, (200, others), false),
    ];
    for (code, head, list, is_ours) in cases {
        let server =
            scripted(&[("PUT /b", &[(409, code)]), ("HEAD /b", &[(head, "<x/>")]), ("GET /", &[list])]).await;
        let report = provision(&server.store(), &plan(Access::Private)).await;
        if is_ours {
            assert!(report.failure().is_none(), "{code} {head}: {report:?}");
        } else {
            assert_eq!(report.failure().unwrap().kind, ErrorKind::NameTaken, "{code} {head}");
            assert_eq!(outcomes(&report), [("create", "failed")]);
            let applied = server.lines().into_iter().filter(|line| line.contains("/b?")).count();
            assert_eq!(applied, 0, "nothing is applied to somebody else's bucket: {:?}", server.lines());
        }
    }
}

#[tokio::test]
async fn without_an_answer_nobody_is_called_the_owner() {
    // (create says, HEAD says) and what is known then.
    for (code, head, kind) in [
        ("BucketAlreadyExists", 503, ErrorKind::Unavailable),
        ("BucketAlreadyExists", 429, ErrorKind::Unavailable),
        ("BucketAlreadyOwnedByYou", 301, ErrorKind::Invalid),
    ] {
        let server = scripted(&[("PUT /b", &[(409, code)]), ("HEAD /b", &[(head, "<x/>")])]).await;
        let report = provision(&server.store(), &plan(Access::Private)).await;
        assert_eq!(report.failure().unwrap().kind, kind, "{code} {head}");
        assert_eq!(outcomes(&report), [("create", "failed")]);
    }
}

#[tokio::test]
async fn a_policy_call_that_is_not_allowed_is_a_refusal_unless_the_store_has_no_policies() {
    const NOT_ALLOWED: (u16, &str) = (405, "MethodNotAllowed");
    let listed =
        "<ListAllMyBucketsResult><Buckets><Bucket><Name>b</Name></Bucket></Buckets></ListAllMyBucketsResult>";
    let none = "<ListAllMyBucketsResult><Buckets/></ListAllMyBucketsResult>";
    // (our list says, reading the policy says) and what becomes of the step.
    let cases = [
        // To other accounts AWS says 405, to whoever sets, removes or reads a policy.
        ((200, none), NOT_ALLOWED, "failed"),
        ((200, none), (403, "AccessDenied"), "failed"),
        ((403, "AccessDenied"), NOT_ALLOWED, "failed"),
        ((403, "AccessDenied"), (404, "NoSuchBucketPolicy"), "failed"),
        // The owner is never told so there: this store does not know policies.
        ((200, listed), NOT_ALLOWED, "skipped"),
        ((200, none), (501, "NotImplemented"), "skipped"),
    ];
    for (access, line) in [(Access::Private, "DELETE /b?policy"), (Access::Public, "PUT /b?policy")] {
        for (list, policy, expected) in cases {
            let server =
                scripted(&[(line, &[NOT_ALLOWED]), ("GET /", &[list]), ("GET /b?policy", &[policy])]).await;
            let report = provision(&server.store(), &plan(access)).await;
            assert_eq!(outcomes(&report)[2], ("policy", expected), "{line}: {list:?}, {policy:?}");
            if expected == "failed" {
                assert_eq!(report.failure().unwrap().kind, ErrorKind::Denied);
            }
        }
    }
}

#[tokio::test]
async fn two_who_create_at_once_both_succeed() {
    let server = scripted(&[
        ("PUT /b", &[(409, "OperationAborted"), (409, "OperationAborted"), (200, "<x/>")]),
        ("HEAD /b", &[(404, "NoSuchBucket")]),
        ("PUT /b?publicAccessBlock", &[(409, "OperationAborted"), (404, "NoSuchBucket"), (200, "<x/>")]),
        ("DELETE /b?policy", &[(409, "OperationAborted"), (404, "NoSuchBucketPolicy")]),
    ])
    .await;
    let report = provision(&server.store(), &plan(Access::Private)).await;
    assert!(report.failure().is_none(), "{report:?}");
    assert_eq!(server.lines().iter().filter(|line| *line == "PUT /b").count(), 3);
}

#[tokio::test]
async fn a_conflict_that_lasts_is_a_failure_in_the_end() {
    let server = scripted(&[("PUT /b?cors", &[(409, "OperationAborted")])]).await;
    let report = provision(&server.store(), &plan(Access::Private)).await;
    assert_eq!(report.failure().unwrap().code.as_deref(), Some("OperationAborted"));
    assert_eq!(report.steps.last().unwrap().name, "cors");
}

#[tokio::test]
async fn what_the_store_lacks_is_skipped_with_the_reason() {
    let lacks: &[(u16, &str)] = &[(501, "NotImplemented")];
    let server = scripted(&[
        ("PUT /b?publicAccessBlock", lacks),
        ("PUT /b?policy", lacks),
        ("PUT /b?cors", &[(405, "MethodNotAllowed")]),
        ("PUT /b?versioning", lacks),
        ("PUT /b?lifecycle", lacks),
    ])
    .await;
    let public = Plan { versioning: true, ..plan(Access::Public) };
    let report = provision(&server.store(), &public).await;
    assert!(report.failure().is_none());
    assert_eq!(
        outcomes(&report)[1..],
        ["public_access_block", "policy", "cors", "versioning", "lifecycle"].map(|name| (name, "skipped"))
    );
    assert_eq!(
        report.steps[2].outcome,
        Outcome::Skipped {
            reason: "the store has no bucket policies (501 NotImplemented): \
                     reading without a signature will not work"
                .to_owned()
        }
    );
}

#[tokio::test]
async fn a_refusal_is_a_failure_whatever_its_text() {
    for line in ["PUT /b?publicAccessBlock", "DELETE /b?policy", "PUT /b?cors", "PUT /b?lifecycle"] {
        let text = "<Error><Code>AccessDenied</Code><Message>no policy, NotImplemented, \
                    LifecycleConfiguration not supported</Message></Error>";
        let server = scripted(&[(line, &[(403, text)])]).await;
        let report = provision(&server.store(), &plan(Access::Temp)).await;
        assert_eq!(report.failure().unwrap().kind, ErrorKind::Denied, "{line}");
        let last = server.lines().pop().unwrap();
        assert_eq!(last, line, "a failed step is the last one");
    }
}

#[tokio::test]
async fn a_failure_part_way_is_made_good_by_the_next_try() {
    let server = scripted(&[
        ("PUT /b", &[(200, "<x/>"), (409, "BucketAlreadyOwnedByYou")]),
        ("PUT /b?cors", &[(403, "AccessDenied"), (200, "<x/>")]),
    ])
    .await;
    let store = server.store();
    assert!(provision(&store, &plan(Access::Temp)).await.failure().is_some());
    let report = provision(&store, &plan(Access::Temp)).await;
    assert!(report.failure().is_none());
    assert_eq!(report.steps.len(), 6);
}

#[tokio::test]
async fn no_policy_to_remove_is_fine_by_code_or_by_status() {
    for body in ["NoSuchBucketPolicy", "<Error><Code>Whatever</Code></Error>"] {
        let server = scripted(&[("DELETE /b?policy", &[(404, body)])]).await;
        assert!(provision(&server.store(), &plan(Access::Private)).await.failure().is_none());
    }
}

#[tokio::test]
async fn a_given_bucket_is_never_created() {
    let given = Plan { create: false, ..plan(Access::Private) };
    let server = scripted(&[("HEAD /b", &[(404, "<x/>")])]).await;
    let report = provision(&server.store(), &given).await;
    assert_eq!(report.failure().unwrap().kind, ErrorKind::NoSuchBucket);
    assert_eq!(server.lines(), ["HEAD /b"]);

    let server = scripted(&[("HEAD /b", &[(403, "<x/>")])]).await;
    assert_eq!(provision(&server.store(), &given).await.failure().unwrap().kind, ErrorKind::Denied);

    let server = scripted(&[]).await;
    let report = provision(&server.store(), &given).await;
    assert!(report.failure().is_none());
    assert_eq!(server.lines()[0], "HEAD /b");
    assert!(!server.lines().contains(&"PUT /b".to_owned()));
    assert_eq!(outcomes(&report)[0], ("create", "skipped"));
}

#[tokio::test]
async fn an_operators_bucket_is_looked_at_and_left_alone() {
    let server = scripted(&[]).await;
    let fixed = Plan { create: false, configure: false, origins: Vec::new(), ..plan(Access::Public) };
    let report = provision(&server.store(), &fixed).await;
    assert!(report.failure().is_none());
    assert_eq!(report.steps.len(), 6);
    assert_eq!(server.lines(), ["HEAD /b"]);
}

#[tokio::test]
async fn no_origin_at_all_is_refused() {
    let server = scripted(&[]).await;
    let closed = Plan { origins: Vec::new(), ..plan(Access::Private) };
    let report = provision(&server.store(), &closed).await;
    assert_eq!(report.failure().unwrap().kind, ErrorKind::Invalid);
    assert_eq!(outcomes(&report).last(), Some(&("cors", "failed")));
    assert!(!server.lines().iter().any(|line| line.contains("cors")));
}

#[tokio::test]
async fn an_inspection_tells_unset_from_unsupported_from_unknown() {
    let server = scripted(&[
        ("GET /b?publicAccessBlock", &[(404, "NoSuchPublicAccessBlockConfiguration")]),
        ("GET /b?policy", &[(200, "<not json")]),
        ("GET /b?cors", &[(501, "NotImplemented")]),
        ("GET /b?lifecycle", &[(403, "AccessDenied")]),
        ("GET /b?versioning", &[(200, "<VersioningConfiguration/>")]),
    ])
    .await;
    assert_eq!(
        serde_json::to_value(inspect(&server.store(), "b").await).unwrap(),
        json!({
            "exists": true,
            "public_access_block": null,
            "policy": "<not json",
            "cors": {"unsupported": "501 NotImplemented"},
            "versioning": null,
            "lifecycle": {"error": "GetBucketLifecycleConfiguration: about AccessDenied \
                                    (status 403, code AccessDenied, request id REQ-42)"},
        })
    );
}

/// Ceph 16 names the root element otherwise than S3 does.
#[tokio::test]
async fn a_public_access_block_is_read_whatever_its_root_is_called() {
    for root in ["PublicAccessBlockConfiguration", "BlockPublicAccessBlockConfiguration"] {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><{root}><BlockPublicAcls>true</BlockPublicAcls>\
             <IgnorePublicAcls>true</IgnorePublicAcls><BlockPublicPolicy>false</BlockPublicPolicy>\
             <RestrictPublicBuckets>false</RestrictPublicBuckets></{root}>"
        );
        let server = scripted(&[("GET /b?publicAccessBlock", &[(200, &body)])]).await;
        let read = server.store().public_access_block("b").await.unwrap();
        assert_eq!(read, Some(PublicAccessBlock::POLICY_ONLY), "{root}");
    }
    // A switch that is not there is not taken to be off.
    for body in ["<Other><BlockPublicAcls>true</BlockPublicAcls></Other>", "<Other/>", "<html>"] {
        let server = scripted(&[("GET /b?publicAccessBlock", &[(200, body)])]).await;
        let refused = server.store().public_access_block("b").await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Unexpected, "{body}");
    }
}
