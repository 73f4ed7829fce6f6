//! Leaving the node as it was found: in the opposite order of the installation, each step written down, so that one
//! that was killed goes on when it is run again.

use super::{
    InstallError, PATIENCE, PLUGIN,
    file::{self, Access, Edited, Gone},
    lock,
    upkeep::agent_lock,
};
use crate::{
    attach::{prefixes, turn},
    cni::netconf::NodeConf,
    fault::{self, Point},
    journal::{FileWas, Journal, Leaving, SysctlWas, boot},
    wiring::{
        Host, firewall, host_ports,
        survey::{Survey, remove_proxies, survey},
        sysctl::{self, Change},
        turn::{put_back, standing},
        uplink,
    },
};
use serde::Serialize;
use std::{
    collections::BTreeSet,
    fs::{self, TryLockError},
    net::IpAddr,
};

/// What becomes of a node with pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pods {
    /// Nothing is taken away.
    Keep,
    /// They lose their network.
    Abandon,
}

/// What was taken away and put back.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Removed {
    /// What was done, in words.
    pub done: Vec<String>,
    /// What was left although we made it, in words with the reason.
    pub left: Vec<String>,
}

/// Takes away what was installed and puts back what was found, as far as it is still as we left it.
///
/// # Errors
/// Pods run or an agent does, or something cannot be done: running it again goes on from there.
pub fn uninstall(node: &NodeConf, uplink: Option<&str>, pods: Pods) -> Result<Removed, InstallError> {
    let journal = Journal::at(&node.state_dir, &node.data_dir);
    let _turn = lock(&journal)?;
    let agent = agent_lock(&journal)?;
    match agent.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(InstallError::AgentRuns),
        Err(TryLockError::Error(source)) => {
            return Err(InstallError::Write { path: journal.state_dir().to_owned(), source });
        }
    }
    let mut host = Host::open()?;
    let boot_id = boot::boot_id(&node.boot_id_file)?;
    refuse_pods(&journal, &mut host, &boot_id, pods)?;
    let mut removed = Removed::default();

    let undo = journal.undo()?.unwrap_or_default();
    let is_binary = |file: &FileWas| file.path.file_name().is_some_and(|name| name == PLUGIN);
    let (binaries, lists): (Vec<&FileWas>, Vec<&FileWas>) =
        undo.files.iter().partition(|file| is_binary(file));
    let mut taken = Vec::new();
    for file in lists {
        let content = fs::read(&file.path).ok();
        if take_away(&journal, file, &mut removed)? == Gone::AsFound {
            taken.extend(content.map(|content| (&file.path, content)));
        }
    }
    let leaving = match begin(&journal, &mut host, &boot_id, pods) {
        Ok(leaving) => leaving,
        Err(error) => {
            // The node goes on: so does its runtime.
            for (path, content) in taken {
                file::place(&journal, path, &content, Access::Text, Edited::Stays)?;
            }
            return Err(error);
        }
    };
    for file in binaries {
        take_away(&journal, file, &mut removed)?;
    }
    file::remove_directories(&undo.directories)?;
    fault::at(Point::UninstallAfterFiles);

    close_loopback(&mut host)?;
    if firewall::remove()? {
        removed.done.push(format!("table inet {} is gone", firewall::TABLE));
    }
    fault::at(Point::UninstallAfterRules);
    remove_answers(&journal, &mut host, uplink, &mut removed)?;
    put_sysctls_back(&journal, boot_id, &mut removed)?;
    leaving.has_left()?;
    fault::at(Point::UninstallAfterSysctls);
    journal.forget_undo()?;
    Ok(removed)
}

/// From here on no pod is started. One that was being started when we looked is there by now.
fn begin(journal: &Journal, host: &mut Host, boot_id: &str, pods: Pods) -> Result<Leaving, InstallError> {
    let leaving = journal.begin_leaving(PATIENCE)?.ok_or(InstallError::PodStarts)?;
    refuse_pods(journal, host, boot_id, pods)?;
    Ok(leaving)
}

fn refuse_pods(journal: &Journal, host: &mut Host, boot_id: &str, pods: Pods) -> Result<(), InstallError> {
    if pods == Pods::Abandon {
        return Ok(());
    }
    let (entries, unread) = journal.picture()?.as_far_as_known();
    let ends = survey(host, None, &[])?.ends.into_iter().map(|end| end.attachment.to_string());
    let live = entries.iter().filter(|entry| entry.is_live()).map(|entry| entry.attachment().to_string());
    // Entries of an earlier boot tell of pods that ended with it.
    let is_current = journal.header()?.is_some_and(|header| header.boot_id == boot_id);
    if let Some(error) = unread.filter(|_| is_current) {
        return Err(error.into());
    }
    let running: BTreeSet<String> = live.filter(|_| is_current).chain(ends).collect();
    match running.first() {
        Some(first) => Err(InstallError::PodsRun { count: running.len(), first: first.clone() }),
        None => Ok(()),
    }
}

/// Ends the way from pods that stay to the host's 127.0.0.1, which only our rules guard.
fn close_loopback(host: &mut Host) -> Result<(), InstallError> {
    for end in survey(host, None, &[])?.ends {
        let key = host_ports::loopback(&end.name);
        // None where the pod has ended meanwhile.
        if sysctl::read(&key)?.is_some_and(|value| value != "0")
            && let Err(error) = sysctl::ensure(&key, "0")
            && sysctl::read(&key)?.is_some()
        {
            return Err(error.into());
        }
    }
    Ok(())
}

fn take_away(journal: &Journal, file: &FileWas, removed: &mut Removed) -> Result<Gone, InstallError> {
    let path = file.path.display();
    let gone = file::take_away(journal, file)?;
    match (&gone, &file.found) {
        (Gone::AsFound, None) => removed.done.push(format!("{path} is gone")),
        (Gone::AsFound, Some(_)) => removed.done.push(format!("{path} is again what it was")),
        (Gone::Changed, _) => removed.left.push(format!("{path} was changed since: it stays as it is")),
    }
    Ok(gone)
}

/// Ends answers for addresses of the block: nobody is behind them any more, or is to be.
fn remove_answers(
    journal: &Journal,
    host: &mut Host,
    uplink: Option<&str>,
    removed: &mut Removed,
) -> Result<(), InstallError> {
    let (Some(claim), Ok(uplink)) = (journal.claim()?, uplink::find(host, uplink)) else { return Ok(()) };
    let within = prefixes(&claim);
    let Survey { ends, stale_proxies, .. } = survey(host, Some(&uplink), &within)?;
    let answered: Vec<IpAddr> = ends.into_iter().flat_map(|end| end.addresses).chain(stale_proxies).collect();
    let ended = remove_proxies(host, &uplink, &answered)?;
    removed.done.extend(ended.iter().map(|address| format!("{} answers no more for {address}", uplink.name)));
    Ok(())
}

/// Puts back sysctls that have still the value that we set.
fn put_sysctls_back(journal: &Journal, boot_id: String, removed: &mut Removed) -> Result<(), InstallError> {
    let Some(undo) = journal.undo()? else { return Ok(()) };
    if undo.boot_id != boot_id {
        // This boot began with values of its own, and nothing was changed in it.
        return Ok(());
    }
    let mut changed = |was: &SysctlWas| {
        removed.left.push(format!("{} was changed since: it stays as it is", was.key));
    };
    let (mut going_back, is_decided) = (Vec::new(), !undo.going_back.is_empty());
    // By a run that was killed, and not long ago: whatever uses the node again ends it.
    for was in undo.going_back {
        match was.is_anothers(sysctl::read(&was.key)?.as_deref()) {
            true => changed(&was),
            false => going_back.push(was),
        }
    }
    if !is_decided {
        // Decided once for all of them: what goes back takes others along.
        let changes: Vec<Change> = undo.sysctls.iter().map(change).collect();
        let ours = standing(&changes)?;
        for was in undo.sysctls {
            if ours.iter().any(|change| change.key == was.key) {
                going_back.push(was);
            } else {
                changed(&was);
            }
        }
        journal.change_undo(|undo| undo.going_back.clone_from(&going_back))?;
    }
    fault::at(Point::UninstallAfterDecision);
    let changes: Vec<Change> = going_back.iter().map(change).collect();
    put_back(&changes, &turn(journal, boot_id)?)?;
    removed.done.extend(going_back.iter().map(|was| format!("{} is {} again", was.key, was.found)));
    Ok(())
}

fn change(was: &SysctlWas) -> Change {
    Change { key: was.key.clone(), found: was.found.clone(), set: was.set.clone() }
}
