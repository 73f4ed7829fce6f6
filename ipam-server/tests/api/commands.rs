//! The commands about a database, as they are run.

use crate::process::command;
use serde_json::Value;
use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Output, Stdio},
};

fn url(dir: &Path, name: &str) -> String {
    format!("sqlite://{}", dir.join(name).display())
}

fn run(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Runs it; what it says, if it ends with this status.
#[track_caller]
fn ended(arguments: &[&str], status: i32) -> String {
    let output = run(arguments);
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}");
    said
}

#[test]
fn a_schema_is_made_once_and_then_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    let database = url(dir.path(), "ipam.db");
    let children: Vec<_> = (0..4)
        .map(|_| command(&["migrate", "--database", &database]).stdout(Stdio::piped()).spawn().unwrap())
        .collect();
    let said: Vec<String> = children
        .into_iter()
        .map(|child| {
            let output = child.wait_with_output().unwrap();
            assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
            text(&output.stdout).to_owned()
        })
        .collect();
    let made = said.iter().filter(|words| words.starts_with("the schema was made, at version ")).count();
    assert_eq!(made, 1, "{said:?}");
    assert!(ended(&["migrate", "--database", &database], 0).contains("already"));
}

#[test]
fn a_backup_is_there_whole_for_its_owner_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let database = url(dir.path(), "ipam.db");
    ended(&["migrate", "--database", &database], 0);
    let file = dir.path().join("backup");
    let name = file.to_str().unwrap();
    ended(&["backup", "--database", &database, name], 0);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().contains("part")), "{names:?}");
    let to_stdout = run(&["backup", "--database", &database, "-"]);
    assert!(text(&to_stdout.stdout).starts_with("{\"format\":\"ipam-dump\""), "{to_stdout:?}");

    let said = ended(&["restore", "--database", &url(dir.path(), "new.db"), name], 0);
    assert!(said.contains("recovery") && said.contains("docs/operations.md"), "{said}");
    let said = ended(&["restore", "--database", &url(dir.path(), "moved.db"), "--nothing-since", name], 0);
    assert!(said.contains("must not run again"), "{said}");
    // By stdin.
    let piped = ["restore", "--database", &url(dir.path(), "piped.db"), "-"];
    let mut child = command(&piped).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&to_stdout.stdout).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    // What was restored in recovery is not empty any more.
    let said = ended(&["restore", "--database", &url(dir.path(), "new.db"), name], 1);
    assert!(said.contains("not empty") && said.contains("name a new file"), "{said}");
}

#[test]
fn what_cannot_be_backed_up_leaves_the_older_backup() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("backup");
    fs::write(&file, "older").unwrap();
    let name = file.to_str().unwrap();
    let said = ended(&["backup", "--database", &url(dir.path(), "nothing.db"), name], 1);
    assert!(said.starts_with("error: cannot back up the database"), "{said}");
    assert!(!dir.path().join("nothing.db").exists(), "a backup makes no database");
    assert_eq!(fs::read_to_string(&file).unwrap(), "older");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
    let said = ended(&["restore", "--database", &url(dir.path(), "new.db"), name], 1);
    assert!(said.contains("ends within line 1"), "{said}");
    let said = ended(&["restore", "--database", &url(dir.path(), "new.db"), "/nonexistent/file"], 1);
    assert!(said.contains("/nonexistent/file"), "{said}");
}

#[test]
fn a_doctor_tells_people_and_programs_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let database = url(dir.path(), "ipam.db");
    ended(&["migrate", "--database", &database], 0);
    let file = dir.path().join("ipam.db");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(ended(&["doctor", "--database", &database], 0), "nothing is wrong\n");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let before = fs::read(&file).unwrap();
    let said = ended(&["doctor", "--database", &database], 0);
    assert!(said.contains("attention  open-file") && said.contains("cure: chmod go-rwx"), "{said}");
    let json: Value =
        serde_json::from_str(&ended(&["doctor", "--database", &database, "--output", "json"], 0)).unwrap();
    assert_eq!(json["findings"][0]["code"], "open-file");
    assert_eq!(fs::read(&file).unwrap(), before);
    let said = ended(&["doctor", "--database", &url(dir.path(), "nothing.db")], 1);
    assert!(said.contains("cannot look at the database"), "{said}");
    // A page in the middle of the file is no page any more.
    let mut damaged = before;
    let size = damaged.len();
    damaged[size / 2..size / 2 + 4096].fill(0x5a);
    fs::write(&file, damaged).unwrap();
    let output = run(&["doctor", "--database", &database]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
}

#[test]
fn events_are_kept_for_a_day_at_least() {
    let said = ended(&["serve", "--keep-events-days", "0"], 2);
    assert!(said.contains("--keep-events-days <DAYS>") && said.contains("1.."), "{said}");
}
