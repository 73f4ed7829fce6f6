//! What the fuzz targets do with an input. `cni-shim/tests/cli/corpus.rs` does the same with the kept corpus on every
//! toolchain.
//!
//! None may panic, and what is read must survive being written and read again.

use cni_shim::{
    cni::{CniArgs, Invocation, NetConf, PluginResult, SpecVersion, ValidAttachments, Verb, Wishes},
    journal::{ClaimFile, Entry, Journal, Readiness, Uptime, pick},
};
use ipam_api::wire::{BootSeq, EntryState, Seq};
use serde_json::{Value, json};
use std::{fs, net::IpAddr};

/// Largest block that is searched: the files are only ever written by the shim, and time is not what is tested.
const LARGEST_BLOCK: u64 = 1 << 12;

/// Standard input of any verb.
pub fn stdin(input: &[u8]) {
    let conf = match NetConf::parse(input) {
        Ok(conf) => conf,
        Err(error) => {
            let object = error.to_json(None);
            assert!(object["code"].is_u64() && object["msg"].is_string(), "{object}");
            return;
        }
    };
    let _ = conf.node.check_access();
    let _ = ValidAttachments::read(&conf);
    let _ = Wishes::read(&invocation("IgnoreUnknown=1"), &conf);
    if let Some(before) = conf.prev_result {
        told(before);
    }
}

/// The environment of ADD, of which `CNI_ARGS` is free text.
pub fn cni_args(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let args = CniArgs::parse(&text);
    if let Some(pod) = &args.pod {
        assert!([&pod.namespace, &pod.name, &pod.uid].iter().all(|name| name.len() <= 253), "{pod:?}");
    }
    let _ = Wishes::read(&invocation(&text), &configuration());
    // The other variables are names: the text serves as each.
    for verb in [Verb::Add, Verb::Del] {
        let _ = Invocation::read(verb, |_| Some(text.clone().into_owned()));
    }
    let _ = Verb::of(&text);
}

/// `prevResult` of CHECK and DEL.
pub fn prev_result(input: &[u8]) {
    if let Ok(value) = serde_json::from_slice(input) {
        told(value);
    }
}

/// The file of an address in the journal.
pub fn entry(input: &[u8]) {
    let Ok(directory) = tempfile::tempdir() else { return };
    let journal = Journal::at(&directory.path().join("state"), &directory.path().join("data"));
    let Ok(mut locked) = journal.lock() else { return };
    let named: IpAddr = IpAddr::from([10, 240, 1, 0]);
    let file = directory.path().join("state/addresses").join(named.to_string());
    fs::write(file, input).expect("a file in a directory just made");
    let Ok(picture) = journal.picture() else { return };
    let refused: Vec<IpAddr> = picture.refused().collect();
    let whole = picture.entries.len() == 1;
    assert!(whole != refused.contains(&named), "a file is an entry, or its address is refused: {picture:?}");
    let Ok(Some(entry)) = journal.entry(named) else { return };
    let now = Uptime::now();
    assert_eq!(reread(&entry), entry);
    let _ = entry.to_sync(now);
    let _ = picture.live(&entry.attachment());
    let claim = taken_up();
    search(&claim, std::slice::from_ref(&entry), now);
    let _ = claim.can_confirm_block(std::slice::from_ref(&entry));
    // A life of it, from wherever it stands.
    let mut next = entry.clone();
    next.wired(now);
    next.ack(EntryState::Wired, next.seq);
    next.releasing(now);
    let seq = locked.draw().expect("a lock that was just made");
    next.released(seq, now);
    assert!(!next.is_live() && next.is_due());
    if whole {
        let attachment = entry.attachment();
        let changed = locked.change(named, &attachment, |entry| *entry = next.clone());
        assert_eq!(changed.expect("a whole file"), Some(next));
    }
}

/// `claim.json`.
pub fn claim(input: &[u8]) {
    let Ok(directory) = tempfile::tempdir() else { return };
    let state = directory.path().join("state");
    let journal = Journal::at(&state, &directory.path().join("data"));
    let Ok(mut locked) = journal.lock() else { return };
    fs::write(directory.path().join("data/claim.json"), input).expect("a file in a directory just made");
    let Ok(Some(mut claim)) = journal.claim() else { return };
    assert_eq!(reread(&claim), claim);
    let now = Uptime::now();
    search(&claim, &[], now);
    let header = claim.stamp(Seq(7), claim.machine.as_ref().map(|machine| machine.hash.as_str())).to_string();
    assert!(header.is_ascii() && !header.contains(['\r', '\n']), "{header}");
    let _ = claim.can_confirm_block(&[]);
    let _ = claim.clone().take_up_block(&[]);

    let node = claim.node.clone();
    for boot_id in ["another boot", &claim.boot.id] {
        let again = ClaimFile::adopt(node.clone(), Some(&claim), boot_id, state.clone(), now);
        assert!(again.node.claim == node.claim && !again.knows_host());
    }
    assert!(claim.clone().refresh(node, Seq(7), now));

    // As the shim takes it up, in the next boot or in the same.
    claim.state_dir = state;
    locked.save_claim(&claim).expect("a directory just made");
    let name = claim.node.name.clone();
    match locked.ready(&name, "another boot") {
        Ok(Readiness::Lost(_)) => assert!(claim.journal && claim.boot.id == "another boot", "{claim:?}"),
        Ok(Readiness::Ready(ready)) if claim.boot.id == ready.boot.id => assert_eq!(ready.boot, claim.boot),
        Ok(Readiness::Ready(ready)) => assert_eq!(ready.boot.seq.0, claim.boot.seq.0.saturating_add(1)),
        other => panic!("a claim of this node's with an empty journal: {other:?}"),
    }
}

/// What a result can be asked, and that no version loses an address.
fn told(value: Value) {
    let result = match PluginResult::from_json(value) {
        Ok(result) => result,
        Err(error) => {
            let _ = error.to_json(None);
            return;
        }
    };
    for version in SpecVersion::ALL {
        let printed = result.to_json(version);
        if version >= SpecVersion::V0_3_0 {
            let again = PluginResult::from_json(printed).expect("what was printed can be read");
            assert_eq!(again.ips, result.ips, "{version}");
        }
        if version == SpecVersion::NEWEST {
            assert_eq!(PluginResult::from_json(result.to_json(version)).as_ref(), Ok(&result));
        }
    }
}

/// Looks for the next address as ADD does.
fn search(claim: &ClaimFile, entries: &[Entry], now: Uptime) {
    let Ok(line) = claim.line() else { return };
    let Ok(block) = claim.block(line) else { return };
    if block.iter().fold(0u64, |sum, extent| sum.saturating_add(extent.size())) > LARGEST_BLOCK {
        return;
    }
    let past = pick::past(claim, line, entries, [], now);
    if let Some(picked) = pick::pick(&block, &past, now) {
        assert!(block.iter().any(|extent| extent.contains(picked.offset)));
        for entry in entries.iter().filter(|entry| entry.is_live()) {
            assert_ne!(line.offset_of(entry.address).ok(), Some(picked.offset), "it has a pod");
        }
    }
}

fn reread<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    let text = serde_json::to_vec(value).expect("it was read from such a text");
    serde_json::from_slice(&text).expect("what was written can be read")
}

fn invocation(args: &str) -> Invocation {
    Invocation::read(Verb::Add, |name| {
        let value = match name {
            "CNI_CONTAINERID" => "c",
            "CNI_IFNAME" => "eth0",
            "CNI_NETNS" => "/run/netns/n",
            "CNI_ARGS" => args,
            _ => return None,
        };
        Some(value.to_owned())
    })
    .expect("a whole environment")
}

fn configuration() -> NetConf {
    let conf = json!({"cniVersion": "1.1.0", "name": "pods", "server": "http://127.0.0.1:1", "node": "n1"});
    NetConf::parse(conf.to_string().as_bytes()).expect("a whole configuration")
}

/// A claim of four addresses, of which the first is that of the entry's file.
fn taken_up() -> ClaimFile {
    let node = json!({
        "name": "n1", "pool": "workers", "subnet": "prod/nodes",
        "addresses": ["10.240.0.10", "fd00:10::a"], "claim": 1,
        "block": {"version": 1, "ranges": [
            {"first": "10.240.1.0", "last": "10.240.1.3", "first6": "fd00:10::100", "last6": "fd00:10::103"}
        ]},
        "network": {"cidrs": ["10.240.0.0/16", "fd00:10::/64"], "gateways": ["10.240.0.1", "fd00:10::1"],
                    "addressSpace": ["10.240.0.0/12", "fd00:10::/48"]},
        "maxPods": 4, "restSeconds": 130, "allocator": "node", "state": "active",
        "boot": {"id": "a", "seq": BootSeq(3)},
        "allocations": 0, "claimedAt": "2026-01-01T00:00:00Z"
    });
    let node = serde_json::from_value(node).expect("a whole node");
    ClaimFile::adopt(node, None, "a", "/run/x".into(), Uptime(0))
}
