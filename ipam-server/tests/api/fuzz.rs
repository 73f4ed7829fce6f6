//! Random changes of valid requests: whatever comes, the answer is documented, and what the document forbids is
//! refused.

use crate::{
    app::App,
    examples::{Example, examples},
    schema::findings,
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestCaseError, TestRunner},
};
use serde_json::{Map, Value, json};
use std::{
    cell::Cell,
    time::{Duration, Instant},
};

const LONGEST: Duration = Duration::from_secs(10);

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0_u64..300).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        any::<[u8; 4]>().prop_map(|[a, b, c, d]| json!(format!("{a}.{b}.{c}.{d}"))),
        (any::<[u8; 4]>(), 0_u8..40).prop_map(|([a, b, c, d], len)| json!(format!("{a}.{b}.{c}.{d}/{len}"))),
        (10_u8..12, any::<u8>(), 8_u8..33).prop_map(|(a, b, len)| json!(format!("{a}.{b}.0.0/{len}"))),
        (240_u8..242, any::<u8>(), any::<u8>()).prop_map(|(b, c, d)| json!(format!("10.{b}.{c}.{d}"))),
        (any::<u16>(), 0_u8..140).prop_map(|(a, len)| json!(format!("fd00:10:{a:x}::/{len}"))),
        prop::sample::select(vec![
            "prod/nodes",
            "prod",
            "nodes",
            "workers",
            "node-1",
            "default",
            "c0",
            "eth0",
            "prefix",
            "required",
            "assigned",
            "service",
            "released",
            "intent",
            "100%",
            "50%",
            "::/0",
            "0.0.0.0/0",
            "10.240.0.0/12",
            "::ffff:10.240.0.1",
            "255.255.255.255",
            "\u{0}",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "10.240.255.255",
        ])
        .prop_map(Value::from),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::vec(("[a-zA-Z]{0,8}", inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// One change of a value at the place that `choices` lead to.
#[derive(Debug, Clone)]
struct Mutation {
    choices: Vec<prop::sample::Index>,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    Replace(Value),
    Remove,
    Repeat,
    Add(String, Value),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let what = prop_oneof![
        5 => value().prop_map(What::Replace),
        1 => Just(What::Remove),
        1 => Just(What::Repeat),
        1 => ("[a-zA-Z0-9]{0,6}", value()).prop_map(|(name, value)| What::Add(name, value)),
    ];
    (prop::collection::vec(any::<prop::sample::Index>(), 1..4), what)
        .prop_map(|(choices, what)| Mutation { choices, what })
}

/// Where a mutation leads: the pointer of the container, and the member or item inside it.
fn target(value: &Value, choices: &[prop::sample::Index]) -> Option<(String, String)> {
    let mut at = value;
    let mut container = String::new();
    let mut inside = None;
    for choice in choices {
        let name = match at {
            Value::Object(members) if !members.is_empty() => {
                members.keys().nth(choice.index(members.len())).unwrap().clone()
            }
            Value::Array(items) if !items.is_empty() => choice.index(items.len()).to_string(),
            _ => break,
        };
        if let Some(above) = inside.replace(name) {
            container = format!("{container}/{above}");
        }
        at = value.pointer(&format!("{container}/{}", inside.as_deref()?))?;
    }
    Some((container, inside?))
}

fn mutate(value: &mut Value, mutation: &Mutation) {
    // A name with a slash or a tilde, put there by another mutation, leads nowhere and is left alone.
    let Some((container, inside)) = target(value, &mutation.choices) else { return };
    match (value.pointer_mut(&container), &mutation.what) {
        (Some(Value::Object(members)), What::Replace(with)) => {
            members.insert(inside, with.clone());
        }
        (Some(Value::Object(members)), What::Remove) => {
            members.remove(&inside);
        }
        (Some(Value::Object(members)), What::Add(name, with)) => {
            members.insert(name.clone(), with.clone());
        }
        (Some(Value::Array(items)), what) => {
            let index: usize = inside.parse().unwrap();
            match what {
                What::Replace(with) => items[index] = with.clone(),
                What::Remove => {
                    items.remove(index);
                }
                What::Repeat => items.push(items[index].clone()),
                What::Add(_, with) => items.push(with.clone()),
            }
        }
        _ => {}
    }
}

/// Sends a changed request; whether it was taken.
async fn send(app: &App, example: &Example, body: &Value, stamp: [u16; 4]) -> Result<bool, TestCaseError> {
    let [claim, boot, seq, block] = stamp.map(|number| number % 4);
    let call = app.call(example.method.clone(), &example.path);
    let call = if example.id == "syncNode" || claim == 3 {
        call.header("ipam-node", &format!("claim={claim}, boot={boot}, seq={seq}, block={block}"))
    } else {
        call
    };
    let reply = call.json(body).send().await;
    let findings = findings(&app.document, &example.schema(), body);
    prop_assert!(
        findings.is_empty() || reply.status.is_client_error(),
        "{} took {body} although {findings:?}: {}",
        example.id,
        reply.text
    );
    Ok(reply.status.is_success())
}

#[test]
fn no_request_meets_a_defect() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let app = runtime.block_on(App::furnished());
    let with_body: Vec<Example> =
        examples(&app.document).into_iter().filter(|example| example.body.is_some()).collect();
    let began = Instant::now();
    let counts = Cell::new((0, 0));
    let strategy =
        (prop::sample::select(with_body), prop::collection::vec(mutation(), 1..4), any::<[u16; 4]>());
    let config = Config { cases: 2000, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&strategy, |(example, mutations, stamp)| {
            // Each case more is a gift; the machine may be slow.
            if began.elapsed() > LONGEST {
                return Ok(());
            }
            let mut body = example.body.clone().unwrap();
            mutations.iter().for_each(|mutation| mutate(&mut body, mutation));
            let taken = runtime.block_on(send(&app, &example, &body, stamp))?;
            let (sent, all_taken) = counts.get();
            counts.set((sent + 1, all_taken + u32::from(taken)));
            Ok(())
        })
        .unwrap();
    let (sent, taken) = counts.get();
    assert!(
        taken > 0 && taken < sent,
        "{taken} of {sent} requests were taken: the changes are too many or too few"
    );
    // Whatever was accepted on the way left a state that can be read.
    runtime.block_on(app.everything());
    runtime.block_on(async { app.get("/v1/capacity").await.expect(200) });
}

#[test]
fn no_text_meets_a_defect() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let app = runtime.block_on(App::furnished());
    let paths: Vec<String> = examples(&app.document).into_iter().map(|example| example.path).collect();
    let strategy = (
        prop::sample::select(paths),
        prop::sample::select(vec!["GET", "PUT", "PATCH", "DELETE", "POST"]),
        "[ -~]{0,20}",
        "\\PC{0,40}",
    );
    let config = Config { cases: 300, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&strategy, |(path, method, query, text)| {
            let uri = format!("{path}?dryRun=true&{query}");
            if uri.parse::<axum::http::Uri>().is_err() {
                return Ok(());
            }
            let call = app.call(method.parse().unwrap(), &uri).raw("application/json", text);
            runtime.block_on(call.send());
            Ok(())
        })
        .unwrap();
}
