//! The program `nft`, which puts rules into the kernel in one transaction.

use super::WiringError;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    io::{self, Read, Write},
    path::Path,
    process::{ChildStderr, ChildStdin, Command, Output, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

/// Longest wait for it: it takes milliseconds, and others wait for whoever starts it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where it is looked for when `PATH` has no such file: runtimes start plugins with any `PATH`.
const PLACES: [&str; 3] = ["nft", "/usr/sbin/nft", "/sbin/nft"];

/// Has it read a script.
///
/// # Errors
/// [`WiringError::Unsupported`] where it is missing, [`WiringError::Firewall`] with its words.
pub(super) fn run(script: &str) -> Result<(), WiringError> {
    for program in PLACES {
        match execute(program, script, PATIENCE) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(WiringError::io("running nft", source)),
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => {
                let message = String::from_utf8_lossy(&output.stderr).trim().replace('\n', " ");
                return Err(WiringError::Firewall { message });
            }
        }
    }
    Err(absent())
}

fn absent() -> WiringError {
    WiringError::Unsupported {
        what: "the program nft".to_owned(),
        cure: "install the package nftables on this node".to_owned(),
    }
}

/// Why rules could not be made, if there is no `nft`.
pub(super) fn missing() -> Option<WiringError> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&paths).flat_map(|path| PLACES.map(|program| path.join(program)));
    // Joined to any directory an absolute path stays what it is.
    let found =
        places.any(|place| place.is_file()) || PLACES.iter().any(|program| Path::new(program).is_file());
    (!found).then(absent)
}

/// Runs it with the script, and kills it where it does not end by itself.
fn execute(program: &str, script: &str, patience: Duration) -> io::Result<Output> {
    let mut child = Command::new(program)
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let pid = i32::try_from(child.id()).map(Pid::from_raw).map_err(io::Error::other)?;
    let (input, words) = (child.stdin.take(), child.stderr.take());
    let (heard, overdue) = thread::scope(|scope| {
        let (done, end) = mpsc::channel::<()>();
        let watch = scope.spawn(move || {
            let overdue = end.recv_timeout(patience) == Err(RecvTimeoutError::Timeout);
            // It is not waited for yet: nobody else has its number.
            overdue.then(|| kill(pid, Signal::SIGKILL))
        });
        let heard = talk(input, words, script);
        drop(done);
        (heard, watch.join().ok().flatten().is_some())
    });
    let status = child.wait()?;
    if overdue {
        let told = format!("it did not end in {} s", patience.as_secs_f32());
        return Err(io::Error::new(io::ErrorKind::TimedOut, told));
    }
    Ok(Output { status, stdout: Vec::new(), stderr: heard? })
}

/// Hands the script over; what is said until the end.
fn talk(input: Option<ChildStdin>, words: Option<ChildStderr>, script: &str) -> io::Result<Vec<u8>> {
    if let Some(mut input) = input {
        match input.write_all(script.as_bytes()) {
            // It gave up early: its own words say more.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            outcome => outcome?,
        }
    }
    let mut heard = Vec::new();
    if let Some(mut words) = words {
        words.read_to_end(&mut heard)?;
    }
    Ok(heard)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt};

    #[test]
    fn an_nft_that_hangs_is_ended_whether_or_not_it_reads() {
        let directory = tempfile::tempdir().unwrap();
        let program = |script: &str| {
            let path = directory.path().join("nft");
            fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            path.to_str().unwrap().to_owned()
        };
        // More than a pipe holds.
        let long = "#\n".repeat(100_000);
        for (script, input) in
            [("exec sleep 600", "x"), ("exec sleep 600", &long), ("cat; exec sleep 600", &long)]
        {
            let error = execute(&program(script), input, Duration::from_millis(50)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{script}");
        }
        let said = execute(&program("cat >/dev/null; echo no >&2; exit 1"), &long, PATIENCE).unwrap();
        assert_eq!((said.status.code(), said.stderr.as_slice()), (Some(1), &b"no\n"[..]));
    }
}
