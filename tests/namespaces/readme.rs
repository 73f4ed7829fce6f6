//! What the README tells people to type does what it says.

use anyhow::{Context, Result, ensure};
use std::{fmt::Write, path::Path, time::Duration};
use vnet_tests::lab::{Binaries, Machine, require_root, until};

const README: &str = include_str!("../../README.md");
const MAKEFILE: &str = include_str!("../../Makefile");
/// What the tour's service says when it is ready.
const LISTENS: &str = "listening on http://127.0.0.1:8420";
const TOUR: &str = "/run/tour";
/// Longest wait for it.
const START: Duration = Duration::from_secs(30);

/// The commands of a section, block by block.
fn blocks(title: &str) -> Result<Vec<Vec<&'static str>>> {
    let (_, after) =
        README.split_once(&format!("\n## {title}\n")).with_context(|| format!("no section {title}"))?;
    let section = after.split("\n## ").next().unwrap_or_default();
    // Every second part of a text that fences cut up lies between two fences.
    let fenced = section.split("```").skip(1).step_by(2);
    Ok(fenced.map(|block| block.lines().filter(|line| !line.trim().is_empty()).collect()).collect())
}

/// What `make` can be asked for.
fn is_target(name: &str) -> bool {
    MAKEFILE.lines().any(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(':')))
}

/// A script that runs each command and ends at the first that does not exit as its comment says:
/// `# exit 3: ...`, or with 0.
fn script(commands: &[&str]) -> Result<String> {
    let mut script = String::from("set -x\n");
    for line in commands {
        let (command, comment) = line.split_once(" # ").unwrap_or((line, ""));
        match comment.strip_prefix("exit ").and_then(|rest| rest.split_once(':')) {
            Some((status, _)) => {
                let expected: u8 = status.parse().with_context(|| format!("a status: {line}"))?;
                writeln!(script, "status=0; {command} || status=$?; [ $status = {expected} ]")?;
            }
            None => writeln!(script, "{command}")?,
        }
    }
    Ok(script)
}

#[test]
fn the_five_minute_tour_runs_as_it_stands() -> Result<()> {
    require_root()?;
    let blocks = blocks("Five minutes on loopback")?;
    let [first, then] = &blocks[..] else { anyhow::bail!("two blocks of commands, not {blocks:?}") };
    let [build, serve] = first[..] else { anyhow::bail!("build, then serve: {first:?}") };
    ensure!(build.strip_prefix("make ").is_some_and(is_target), "not a target of the Makefile: {build}");
    ensure!(then.len() > 5, "a tour, not {then:?}");

    // A machine of its own: its loopback has the port free, and the tour's files end with it.
    let binaries = Binaries::find()?;
    let machine = Machine::boot("tour", &binaries)?;
    machine.script(&format!("mkdir -p {TOUR}/target; ln -s /run/bin {TOUR}/target/debug"))?;
    let there = |commands: &str| format!("cd {TOUR}\n{commands}");
    // Ahead of the command, which ends in a comment.
    let serve = there(&format!("exec >said 2>&1\n{serve}"));
    let mut service = machine.enter("sh").args(["-euc", &serve]).spawn()?;
    let said = || machine.read(&format!("{TOUR}/said"));
    let told = (|| {
        until("the service listens", START, || {
            let ended = service.try_wait()?;
            ensure!(ended.is_none(), "the service ended, {ended:?}: {}", said());
            Ok(said().contains(LISTENS).then_some(()))
        })?;
        let database = machine.outside(&format!("{TOUR}/ipam.db"));
        ensure!(database.is_file(), "the database is not where the README has it");
        machine.script(&there(&script(then)?))
    })();
    // The service ends with its machine.
    drop(machine);
    service.wait()?;
    told.map(|said| println!("{said}"))
}

#[test]
fn the_make_targets_it_names_exist() -> Result<()> {
    for block in blocks("Two commands")? {
        for line in block {
            let target = line.split_whitespace().nth(1).unwrap_or_default();
            ensure!(line.starts_with("make ") && is_target(target), "not a target of the Makefile: {line}");
        }
    }
    for path in ["ARCHITECTURE.md", "CONTRIBUTING.md", "openapi/openapi.json"] {
        ensure!(README.contains(&format!("({path})")), "the README does not link {path}");
        ensure!(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path).is_file(), "{path} is not there");
    }
    Ok(())
}
