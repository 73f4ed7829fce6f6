//! The document: in step with its copy, sound, and shown offline.

use crate::app::App;
use axum::{
    body::Body,
    http::{Method, Request},
};
use serde_json::Value;
use std::{collections::BTreeSet, fs, io::Read, path::Path};

#[test]
fn the_checked_in_document_is_the_generated_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../openapi/openapi.json");
    let generated = ipam_server::api::document();
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        fs::write(&path, &generated).unwrap();
    }
    let checked_in = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        checked_in == generated,
        "openapi/openapi.json is not what the routes say: regenerate it by `cargo run -p ipam-server -- openapi > \
         openapi/openapi.json` or by running this test with UPDATE_OPENAPI=1, and commit it"
    );
}

fn walk(value: &Value, visit: &mut impl FnMut(&str, &Value)) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                visit(name, member);
                walk(member, visit);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| walk(item, visit)),
        _ => {}
    }
}

fn document() -> Value {
    serde_json::from_str(&ipam_server::api::document()).unwrap()
}

#[test]
fn it_is_openapi_3_1_and_every_reference_leads_somewhere() {
    let document = document();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
    let mut count = 0;
    walk(&document, &mut |name, value| {
        if name == "$ref" {
            count += 1;
            let pointer = value.as_str().unwrap().strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{value} leads nowhere");
        }
    });
    assert!(count > 100, "only {count} references");
}

#[test]
fn every_operation_has_an_id_a_summary_a_tag_and_its_parameters() {
    let document = document();
    let tags: Vec<&Value> = document["tags"].as_array().unwrap().iter().map(|tag| &tag["name"]).collect();
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{id} is there twice");
            assert!(!operation["summary"].as_str().unwrap().is_empty(), "{id}");
            assert!(tags.contains(&&operation["tags"][0]), "{id}");
            for name in path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}')) {
                let described = operation["parameters"].as_array().unwrap().iter().any(|parameter| {
                    parameter["in"] == "path" && parameter["name"] == name && parameter["required"] == true
                });
                assert!(described, "{id} does not describe {name}");
            }
            let writes = ["put", "patch", "delete"].contains(&method.as_str());
            if writes && !path.contains("allocations") && id != "putCredential" {
                let described = operation["parameters"].to_string();
                for name in ["dryRun", "If-Match", "If-None-Match"] {
                    assert!(described.contains(&format!("\"{name}\"")), "{id} does not describe {name}");
                }
            }
        }
    }
    assert_eq!(ids.len(), 47, "an operation came or went: say so here");
}

#[test]
fn a_page_names_the_type_of_its_items() {
    let document = document();
    for name in ["Vnet", "Subnet", "ExtentInfo", "Reservation", "Pool", "Node", "Allocation"] {
        let items =
            &document["components"]["schemas"][format!("Listing_{name}")]["properties"]["items"]["items"];
        assert_eq!(items["$ref"], format!("#/components/schemas/{name}"));
    }
}

#[tokio::test]
async fn it_is_served() {
    let app = App::new().await;
    let reply = app.get("/openapi.json").await.expect(200);
    assert_eq!(reply.text, ipam_server::api::document());
}

#[tokio::test]
async fn the_page_is_whole_and_asks_nobody_else() {
    let app = App::new().await;
    let get = |path: &str| Request::builder().method(Method::GET).uri(path).body(Body::empty()).unwrap();
    let reply = app.send_unchecked(get("/docs")).await.expect(303);
    assert_eq!(reply.header("location"), "/docs/");
    let index = app.send_unchecked(get("/docs/")).await.expect(200);
    assert_eq!(index.header("content-encoding"), "gzip");
    let mut text = String::new();
    flate2::read::GzDecoder::new(&index.bytes[..]).read_to_string(&mut text).unwrap();
    let index = text;
    let settings = app.send_unchecked(get("/docs/swagger-initializer.js")).await.expect(200).text;
    assert!(settings.contains("\"url\": \"/openapi.json\""), "{settings}");
    assert!(settings.contains("\"validatorUrl\": \"none\""), "{settings}");
    for text in [&index, &settings] {
        assert!(!text.contains("http://") && !text.contains("https://") && !text.contains("\"//"), "{text}");
    }
    let mut files = 0;
    for name in index.split(['"', '\'']).filter(|text| text.ends_with(".js") || text.ends_with(".css")) {
        app.send_unchecked(get(&format!("/docs/{}", name.trim_start_matches("./")))).await.expect(200);
        files += 1;
    }
    assert!(files >= 4, "{index}");
    app.send_unchecked(get("/docs/none")).await.expect(404).expect_problem("not-found", None);
}
