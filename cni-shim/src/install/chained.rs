//! Other plugins of the list, and which versions they speak.

use super::InstallError;
use crate::cni::SpecVersion;
use serde::Deserialize;
use std::{
    fmt,
    io::{self, ErrorKind, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Longest wait for an answer that takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);
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

/// VERSION as libcni asks for it.
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
    wait(&mut child, end)?;
    let mut answer = Vec::new();
    if let Some(mut output) = child.stdout.take() {
        output.read_to_end(&mut answer)?;
    }
    Ok(answer)
}

fn start(plugin: &Path) -> io::Result<Child> {
    Command::new(plugin)
        .env_clear()
        .envs([("CNI_COMMAND", "VERSION"), ("CNI_CONTAINERID", "dummy"), ("CNI_NETNS", "dummy")])
        .envs([("CNI_IFNAME", "dummy"), ("CNI_PATH", "dummy"), ("CNI_ARGS", "")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
}

/// Waits for its end: an answer is smaller than a pipe.
fn wait(child: &mut Child, end: Instant) -> io::Result<()> {
    loop {
        if let Some(status) = child.try_wait()? {
            return if status.success() { Ok(()) } else { Err(io::Error::other(status.to_string())) };
        }
        if Instant::now() >= end {
            let _ = child.kill();
            let _ = child.wait();
            return Err(io::Error::new(
                ErrorKind::TimedOut,
                format!("no answer in {} s", PATIENCE.as_secs()),
            ));
        }
        std::thread::sleep(PAUSE);
    }
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
        for (script, why) in [("echo no", "expected"), ("exit 3", "exit status: 3"), ("exec sleep 60", "5 s")]
        {
            let error = with(script).unwrap_err().to_string();
            assert!(error.contains(why), "{script}: {error}");
        }
        let error = Spoken::by("portmap", &["/nowhere".into()]).unwrap_err().to_string();
        assert!(
            error.contains("portmap") && error.contains("/nowhere") && error.contains("--plugin-dir"),
            "{error}"
        );
    }
}
