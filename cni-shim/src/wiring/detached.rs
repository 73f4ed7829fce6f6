//! Work that nobody needs to wait for, in a process of its own.

use std::{
    io,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    thread,
};

/// Starts this program with these words, as by hand. It outlives the caller and holds none of its pipes, so no
/// runtime waits for it. `input` is what it is given to read, or to hold.
///
/// # Errors
/// When the process can't be started.
pub(crate) fn start(words: impl IntoIterator<Item = String>, input: Stdio) -> io::Result<()> {
    Command::new("/proc/self/exe")
        .args(words)
        // With it set the program would take itself for a plugin.
        .env_remove("CNI_COMMAND")
        .stdin(input)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map(|mut child| {
            // The agent stays, and a child that nobody waits for stays with it.
            let _ = thread::Builder::new().name("detached".to_owned()).spawn(move || child.wait());
        })
}
