//! `SECURITY.md`: its table is what the document says. That the tests it names are there is seen to in `tests/namespaces`.

use crate::{app::App, examples::examples};
use ipam_api::wire::Role;
use std::{fmt::Write, fs, path::Path};

const BEGIN: &str = "<!-- operations: generated, see below -->\n";
const END: &str = "<!-- end of operations -->\n";

fn file() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../SECURITY.md")
}

/// Operation by role, as the document has it.
async fn table() -> String {
    let app = App::new().await;
    let mut rows = String::from("| operation |");
    for role in Role::ALL {
        write!(rows, " {} |", role.word()).unwrap();
    }
    rows.push_str(" certificate | nobody |\n|---|");
    rows.push_str(&"---|".repeat(Role::ALL.len() + 2));
    rows.push('\n');
    for example in examples(&app.document) {
        let security = example.operation["security"].as_array().unwrap();
        let bearer: Vec<&str> = security
            .iter()
            .filter_map(|scheme| scheme["bearer"].as_array())
            .flatten()
            .map(|word| word.as_str().unwrap())
            .collect();
        write!(rows, "| `{} {}` |", example.method, example.template).unwrap();
        for role in Role::ALL {
            let mark = match (bearer.contains(&role.word()), role) {
                (false, _) => "",
                (true, Role::Node) => "own",
                (true, Role::Join) => "new",
                (true, _) => "yes",
            };
            write!(rows, " {mark} |").unwrap();
        }
        let certificate = security.iter().any(|scheme| scheme.get("clientCertificate").is_some());
        let marks = [if certificate { "own" } else { "" }, if security.is_empty() { "yes" } else { "" }];
        for mark in marks {
            write!(rows, " {mark} |").unwrap();
        }
        rows.push('\n');
    }
    rows.replace("|  |", "| |").replace("|  |", "| |")
}

#[tokio::test]
async fn the_table_is_what_the_document_says() {
    let written = fs::read_to_string(file()).unwrap();
    let (before, rest) = written.split_once(BEGIN).expect("where the table begins");
    let (there, after) = rest.split_once(END).expect("where the table ends");
    let table = table().await;
    if std::env::var_os("UPDATE_SECURITY").is_some() {
        fs::write(file(), format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
        return;
    }
    assert!(
        there == table,
        "the table in SECURITY.md is not what the routes say: look at who may call what now, run this test with \
         UPDATE_SECURITY=1, and commit it"
    );
}
