//! What a hidden row takes longer to be denied than one that does not exist, as a client on the same machine sees it, held
//! against how much the same question takes now longer and now shorter.

use pg_storage_tests::Scene;
use pg_storage_tests::flow::Upload;
use postgres::Client;

use crate::files::USER;
use crate::median::{micros_each, time};
use crate::sizes::Sizes;
use crate::table::Row;

/// What others ask, of a file and of an upload.
const QUESTIONS: [(&str, &str); 3] = [
    ("download_url", "SELECT storage.download_url($1::text::uuid)"),
    ("delete_file", "SELECT storage.delete_file($1::text::uuid)"),
    ("confirm_upload", "SELECT storage.confirm_upload($1::text::uuid)"),
];

/// One row for each question of somebody in the tenant, and one for each of somebody outside.
pub fn rows(sizes: Sizes, scene: &Scene) -> Vec<Row> {
    let mut owner = scene.user(USER);
    let bytes = b"hidden";
    let file = Upload::of(bytes).complete(&mut owner, bytes).file_id;
    let upload = Upload::of(bytes).request(&mut owner).upload_id;
    let mut rows = Vec::new();
    for (whose, mut asking) in [
        ("another user's", scene.user("another")),
        ("another tenant's", scene.stranger("stranger", "elsewhere")),
    ] {
        for (name, question) in QUESTIONS {
            let (what, hidden) = if name == "confirm_upload" { ("upload", &upload) } else { ("file", &file) };
            rows.push(row(sizes, &mut asking, &format!("{name} of {whose} {what}"), question, hidden));
        }
    }
    rows
}

fn row(sizes: Sizes, asking: &mut Client, what: &str, question: &str, hidden: &str) -> Row {
    let statement = asking.prepare(question).expect("prepare the question");
    let mut ask = |id: &str| {
        let took = time(|| {
            asking.query(&statement, &[&id]).expect_err("it is denied");
        });
        micros_each(took, 1)
    };
    let absent = "00000000-0000-4000-8000-000000000000";
    let (mut ones, mut others) = (Vec::new(), Vec::new());
    for _ in 0..sizes.urls {
        ones.push(ask(hidden));
        others.push(ask(absent));
    }
    let [_, hidden, _] = quarters(ones);
    let [low, absent, high] = quarters(others);
    Row::new(format!("{what}, until it is denied"), format!("{hidden:.1} µs"))
        .against(format!("{absent:.1} µs an absent one, half of them {low:.1} to {high:.1}"), hidden / absent)
        .goal("within that half", hidden <= high)
}

/// The values between the quarters.
fn quarters(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_unstable_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[values.len() * quarter / 4])
}
