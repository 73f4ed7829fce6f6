//! Other plugins of the list, and which versions they speak.

use super::InstallError;
use crate::cni::SpecVersion;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{Signal, killpg},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};
use serde::Deserialize;
use std::{
    fmt,
    io::{self, ErrorKind, Read, Write},
    os::{fd::AsFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

/// Longest wait for an answer that takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest answer in bytes; one with every version there is has a hundred.
const LONGEST: usize = 64 * 1024;
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(2);

/// A plugin and what it says it speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spoken {
    plugin: String,
    versions: Vec<String>,
}

impl Spoken {
    #[cfg(test)]
    pub(super) fn of(plugin: &str, versions: Vec<String>) -> Self {
        Self { plugin: plugin.to_owned(), versions }
    }

    /// Asks the plugin of that name, in the first of these directories that has it.
    pub(super) fn by(plugin: &str, directories: &[PathBuf]) -> Result<Self, InstallError> {
        let lies_in = |directory: &&PathBuf| directory.join(plugin).is_file();
        let Some(path) = directories.iter().find(lies_in).map(|directory| directory.join(plugin)) else {
            let looked: Vec<String> = directories.iter().map(|path| path.display().to_string()).collect();
            return Err(InstallError::NoPlugin { plugin: plugin.to_owned(), looked: looked.join(" and ") });
        };
        let failed = |why: String| InstallError::Mute { path: path.clone(), why };
        let answer = ask(&path).map_err(|error| failed(error.to_string()))?;
        let answer: Answer = serde_json::from_slice(&answer).map_err(|error| failed(error.to_string()))?;
        Ok(Self { plugin: plugin.to_owned(), versions: answer.supported_versions })
    }

    pub(super) fn speaks(&self, version: SpecVersion) -> bool {
        self.versions.iter().any(|spoken| spoken == version.as_str())
    }
}

impl fmt::Display for Spoken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} speaks {}", self.plugin, self.versions.join(", "))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    supported_versions: Vec<String>,
}

/// VERSION as libcni asks for it. Whatever the plugin started ends with the question.
fn ask(plugin: &Path) -> io::Result<Vec<u8>> {
    let end = Instant::now() + PATIENCE;
    let mut child = loop {
        match start(plugin) {
            // Somebody is writing it at this moment.
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy && Instant::now() < end => {
                std::thread::sleep(PAUSE);
            }
            started => break started?,
        }
    };
    if let Some(mut input) = child.stdin.take() {
        // One that does not read it may be gone by now.
        let _ = input.write_all(br#"{"cniVersion":"1.0.0"}"#);
    }
    let (pid, output) = (pid(&child)?, child.stdout.take());
    let heard = output.map_or(Ok(Vec::new()), |output| hear(pid, output, end));
    // Before it is waited for: until then nobody else gets its number.
    let _ = killpg(pid, Signal::SIGKILL);
    let status = child.wait()?;
    let answer = heard?;
    if status.success() { Ok(answer) } else { Err(io::Error::other(status.to_string())) }
}

fn start(plugin: &Path) -> io::Result<Child> {
    Command::new(plugin)
        .env_clear()
        .envs([("CNI_COMMAND", "VERSION"), ("CNI_CONTAINERID", "dummy"), ("CNI_NETNS", "dummy")])
        .envs([("CNI_IFNAME", "dummy"), ("CNI_PATH", "dummy"), ("CNI_ARGS", "")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
}

fn pid(child: &Child) -> io::Result<Pid> {
    i32::try_from(child.id()).map(Pid::from_raw).map_err(io::Error::other)
}

/// What the plugin says until it has ended, which others that it started may outlive with their hands on its output.
fn hear(plugin: Pid, mut output: ChildStdout, end: Instant) -> io::Result<Vec<u8>> {
    let (mut answer, mut part) = (Vec::new(), [0; 4096]);
    loop {
        // Looked at first: what was said before its end is there by then.
        let has_ended = has_ended(plugin)?;
        while is_readable(&output)? {
            match output.read(&mut part)? {
                0 => break,
                read => answer.extend_from_slice(&part[..read]),
            }
            if answer.len() > LONGEST {
                return Err(io::Error::other(format!("it says more than {LONGEST} bytes")));
            }
        }
        if has_ended {
            return Ok(answer);
        }
        if Instant::now() >= end {
            let told = format!("no answer in {} s", PATIENCE.as_secs());
            return Err(io::Error::new(ErrorKind::TimedOut, told));
        }
        std::thread::sleep(PAUSE);
    }
}

/// Whether a child has ended, which it is still to be waited for.
fn has_ended(child: Pid) -> io::Result<bool> {
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    Ok(waitid(Id::Pid(child), look)? != WaitStatus::StillAlive)
}

fn is_readable(output: &ChildStdout) -> io::Result<bool> {
    let mut output = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut output, PollTimeout::ZERO)? > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt};

    fn plugin(directory: &Path, script: &str) -> PathBuf {
        let path = directory.join("p");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        directory.to_owned()
    }

    #[test]
    fn what_a_plugin_speaks_is_what_it_says() {
        let directory = tempfile::tempdir().unwrap();
        let with = |script: &str| Spoken::by("p", &["/nowhere".into(), plugin(directory.path(), script)]);
        let spoken = with(
            r#"[ $CNI_COMMAND = VERSION ] && echo '{"cniVersion":"1.0.0","supportedVersions":["1.0.0"]}'"#,
        );
        let spoken = spoken.unwrap();
        assert!(spoken.speaks(SpecVersion::V1_0_0) && !spoken.speaks(SpecVersion::V1_1_0));
        for (script, why) in [
            ("echo no", "expected"),
            ("exit 3", "exit status: 3"),
            ("exec sleep 60", "5 s"),
            ("while :; do echo more; done", "65536 bytes"),
        ] {
            let error = with(script).unwrap_err().to_string();
            assert!(error.contains(why), "{script}: {error}");
        }
        let error = Spoken::by("portmap", &["/nowhere".into()]).unwrap_err().to_string();
        assert!(
            error.contains("portmap") && error.contains("/nowhere") && error.contains("--plugin-dir"),
            "{error}"
        );
    }

    #[test]
    fn what_a_plugin_leaves_behind_keeps_nobody_waiting_and_ends() {
        let directory = tempfile::tempdir().unwrap();
        let script = format!(
            "sleep 600 & echo $! >{}; echo '{{\"supportedVersions\":[\"1.0.0\"]}}'",
            directory.path().join("left").display()
        );
        let asked = Instant::now();
        let spoken = Spoken::by("p", &[plugin(directory.path(), &script)]).unwrap();
        assert!(spoken.speaks(SpecVersion::V1_0_0) && asked.elapsed() < PATIENCE);
        let left = fs::read_to_string(directory.path().join("left")).unwrap();
        // Gone, or a zombie that nobody has collected yet.
        while fs::read_to_string(format!("/proc/{}/stat", left.trim()))
            .is_ok_and(|stat| !stat.contains(") Z"))
        {
            assert!(asked.elapsed() < 2 * PATIENCE, "{left} lives on");
        }
    }
}
