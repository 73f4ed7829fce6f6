//! `cni-shim`: with `CNI_COMMAND` set a CNI plugin, without it a command to use by hand.

use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::var("CNI_COMMAND") {
        Ok(command) if !command.is_empty() => cni_shim::plugin::run(&command),
        // Not text: no verb either, but the runtime meant one.
        Err(std::env::VarError::NotUnicode(_)) => cni_shim::plugin::run("?"),
        Ok(_) | Err(std::env::VarError::NotPresent) => cni_shim::by_hand::run(),
    }
}
