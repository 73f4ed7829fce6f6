//! The real service, with an empty database.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};
use tempfile::TempDir;

/// Longest wait for a service to listen.
const START: Duration = Duration::from_secs(60);

/// A service with an empty database; ends with the value.
pub(crate) struct Service {
    child: Child,
    pub(crate) url: String,
    directory: TempDir,
}

impl Service {
    /// On loopback, where nobody is asked for a credential.
    pub(crate) fn start() -> Self {
        Self::start_with(tempfile::tempdir().unwrap(), &[])
    }

    /// With more options; its database and what they name lie in the directory.
    pub(crate) fn start_with(directory: TempDir, options: &[&str]) -> Self {
        let binary = server_binary();
        let place = format!("sqlite://{}", directory.path().join("ipam.db").display());
        let mut child = Command::new(&binary)
            .args(["serve", "--listen", "127.0.0.1:0", "--log", "warn", "--database", &place])
            .args(options)
            .current_dir(directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", binary.display()));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (found, url) = mpsc::channel();
        thread::spawn(move || {
            // Reads on to the end, so that the service never writes to a closed pipe.
            while let Some(Ok(line)) = lines.next() {
                if let Some((_, url)) = line.split_once("listening on ") {
                    let _ = found.send(url.trim().to_owned());
                }
            }
        });
        let url = url.recv_timeout(START);
        // From here on the child ends with the value, whatever happened.
        let service = Self { child, url: url.clone().unwrap_or_default(), directory };
        assert!(url.is_ok(), "{} did not say where it listens", binary.display());
        service
    }

    /// A file in its directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What a file in its directory says.
    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The service's binary: named by `IPAM_SERVER_BIN`, or built beside this test's.
pub(crate) fn server_binary() -> PathBuf {
    let binary = std::env::var_os("IPAM_SERVER_BIN").map_or_else(
        || Path::new(env!("CARGO_BIN_EXE_ipamctl")).with_file_name("ipam-server"),
        PathBuf::from,
    );
    let shown = binary.display();
    assert!(binary.is_file(), "{shown} is not there: run cargo build -p ipam-server, or set IPAM_SERVER_BIN");
    binary
}
