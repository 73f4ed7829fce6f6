//! The demo cleans up whatever happens to it.

use anyhow::{Context, Result, ensure};
use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};
use vnet_tests::lab::{require_root, run_full, take_turn, until};

const DEMO: &str = env!("CARGO_BIN_EXE_demo");

/// A process that has not ended.
#[derive(Debug, Clone, Copy)]
struct Process {
    pid: u32,
    parent: u32,
    /// In ticks since boot: tells it from a later one of the same PID.
    began: u64,
}

impl Process {
    /// From its `/proc/<pid>/stat`: `pid (name) state parent ...`, the name with anything in it.
    fn parse(stat: &str) -> Option<Self> {
        let (pid, rest) = stat.split_once(' ')?;
        let mut fields = rest.rsplit_once(") ")?.1.split(' ');
        let state = fields.next()?;
        let (parent, began) = (fields.next()?, fields.nth(17)?);
        // Ended, and nobody has asked how.
        (state != "Z").then_some(())?;
        Some(Self { pid: pid.parse().ok()?, parent: parent.parse().ok()?, began: began.parse().ok()? })
    }

    fn is_same(&self, other: &Self) -> bool {
        (self.pid, self.began) == (other.pid, other.began)
    }
}

fn processes() -> Result<Vec<Process>> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc")? {
        // One that ended since the listing cannot be read; what is no process has no such file.
        all.extend(
            fs::read_to_string(entry?.path().join("stat")).ok().and_then(|stat| Process::parse(&stat)),
        );
    }
    Ok(all)
}

/// All that descend from a process.
fn descendants(of: u32) -> Result<Vec<Process>> {
    let all = processes()?;
    let mut family = BTreeSet::from([of]);
    loop {
        let children: Vec<u32> =
            all.iter().filter(|one| family.contains(&one.parent)).map(|child| child.pid).collect();
        let before = family.len();
        family.extend(children);
        if family.len() == before {
            return Ok(all.into_iter().filter(|one| one.pid != of && family.contains(&one.pid)).collect());
        }
    }
}

#[test]
fn a_demo_that_fails_says_so_and_leaves_nothing() -> Result<()> {
    require_root()?;
    let _turn = take_turn();
    let binaries = Path::new(env!("CARGO_TARGET_TMPDIR")).join("failing-demo");
    if binaries.exists() {
        fs::remove_dir_all(&binaries)?;
    }
    fs::create_dir_all(&binaries)?;
    let built = Path::new(DEMO).parent().context("the demo lies in a directory")?;
    for program in ["ipam-server", "cni-shim"] {
        symlink(built.join(program), binaries.join(program))?;
    }
    // Plans, creates, and fails when the first node is to be registered.
    let ipamctl = binaries.join("ipamctl");
    let real = built.join("ipamctl");
    fs::write(
        &ipamctl,
        format!("#!/bin/sh\n[ \"$1\" != node ] || exit 1\nexec {} \"$@\"\n", real.display()),
    )?;
    fs::set_permissions(&ipamctl, fs::Permissions::from_mode(0o755))?;

    let output = run_full(Command::new(DEMO).env("VNET_BIN_DIR", &binaries))?;
    let (told, complaint) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.code() == Some(1), "{}: {told}{complaint}", output.status);
    ensure!(complaint.contains("The demo stopped here"), "{complaint}");
    for line in ["NO  the story is told to its end", "yes the machine itself is as it was before"] {
        ensure!(told.contains(line), "the summary does not say \"{line}\": {told}");
    }
    Ok(())
}

#[test]
fn a_killed_demo_leaves_no_process() -> Result<()> {
    require_root()?;
    let _turn = take_turn();
    let mut demo = Command::new(DEMO).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let stdout = BufReader::new(demo.stdout.take().context("its output")?);
    // Pods run by then.
    let mut lines = stdout.lines();
    let reached =
        lines.find(|line| line.as_ref().is_ok_and(|line| line.ends_with("Everyone reaches everyone")));
    let alive = descendants(demo.id());
    demo.kill()?;
    demo.wait()?;
    ensure!(reached.is_some(), "the demo ended before its pods ran");
    let alive = alive?;
    // Five machines and the fabric, each held by two processes, and the service.
    ensure!(alive.len() > 12, "the demo's processes: {alive:?}");
    until("all that the demo started ends with it", Duration::from_secs(30), || {
        let left = processes()?.iter().any(|one| alive.iter().any(|before| before.is_same(one)));
        Ok((!left).then_some(()))
    })
}
