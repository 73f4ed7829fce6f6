//! What the agent does of an installation, by the program that is both.

use crate::{
    node::until,
    site::{Site, refused, words},
};
use serde_json::json;
use std::fs;

#[test]
fn the_agent_installs_what_install_had_and_tells_the_runtime_once_there_is_a_claim() {
    let site = Site::new();
    let agent = site.agent(&[], &[]);
    until("the agent has taken the claim up", || site.node.about_network("STATUS", &json!({})).status == 0);
    refused(&site.run("uninstall", &[]), &["the agent runs", "stop it"]);
    drop(agent);
    assert!(!site.binary().exists() && !site.list().exists(), "nobody asked for it");
    site.run("uninstall", &[]).done();

    // As on a node that begins.
    fs::remove_file(site.path("data/claim.json")).unwrap();
    for _ in 0..100 {
        site.node.service.state().refuse("GET", 404, "not-found");
    }
    let agent = site.agent(&[], &["--install"]);
    until("the binary is there", || site.binary().exists());
    until("the claim is missed", || agent.said().contains("ipamctl node register n1"));
    assert!(!site.list().exists(), "{}", agent.said());
    site.node.service.state().as_usual();
    until("the agent goes on", || site.list().exists());
    assert!(site.node.about_network("STATUS", &json!({})).done().is_null());
    drop(agent);
    // What it had, it puts there again.
    for path in [site.list(), site.binary()] {
        fs::remove_file(path).unwrap();
    }
    let agent = site.agent(&[], &[]);
    until("both are there", || site.list().exists() && site.binary().exists());
    drop(agent);
}

#[test]
fn the_agent_tells_once_what_it_cannot_set_here_and_what_drops_packets() {
    let site = Site::new();
    site.node.namespace.sh(
        "nft 'table inet filter { chain forward { type filter hook forward priority 0; policy drop; }; }'",
    );
    let agent = site.agent(&[], &[]);
    let both = ["neighbour tables of gc_thresh1 = 32768", "chain forward of the nftables table inet filter"];
    until("both are told", || both.iter().all(|part| agent.said().contains(part)));
    // A later round tells what is new then, and that alone.
    site.node
        .namespace
        .sh("nft 'table ip second { chain forward { type filter hook forward priority 0; policy drop; }; }'");
    until("the second is told", || agent.said().contains("the nftables table ip second"));
    for part in both {
        assert_eq!(agent.said().matches(part).count(), 1, "{}", agent.said());
    }
}

#[test]
fn the_agent_leaves_alone_what_somebody_edited_and_says_so_until_it_is_taken_back() {
    let site = Site::new();
    site.install();
    let edited = site.list_as_read().to_string();
    fs::write(site.list(), &edited).unwrap();
    fs::write(site.binary(), "another build").unwrap();
    let agent = site.agent(&[], &["--install"]);
    let told = |path: &std::path::Path| format!("{} is not as it was left", path.display());
    until("both are told", || {
        let said = agent.said();
        [site.list(), site.binary()].iter().all(|path| said.contains(&told(path)))
            && said.contains("run `cni-shim install` again")
    });
    until("the report has them", || site.scrape(&agent).contains("cni_shim_files_changed 2"));
    assert_eq!(fs::read_to_string(site.list()).unwrap(), edited);
    assert_eq!(fs::read_to_string(site.binary()).unwrap(), "another build");
    let changed = words(&site.install(), "changed");
    assert!(changed.contains("cni-shim") && changed.contains("10-pods.conflist"), "{changed}");
    until("the report has none", || site.scrape(&agent).contains("cni_shim_files_changed 0"));
    drop(agent);
    // What is ours is made anew by whatever is said now.
    let agent = site.agent(&[], &["--install", "--uplink", "up0"]);
    until("the list says it", || site.list_as_read()["plugins"][0]["uplink"] == "up0");
    drop(agent);
    assert!(words(&site.run("uninstall", &[]).done(), "left").is_empty());
}

#[test]
fn a_list_that_somebody_edited_is_told_of_whatever_plugins_it_names() {
    let site = Site::new();
    site.install();
    let mut edited = site.list_as_read();
    edited["plugins"].as_array_mut().unwrap().push(json!({"type": "nowhere"}));
    fs::write(site.list(), edited.to_string()).unwrap();
    let agent = site.agent(&[], &["--install"]);
    until("the report has it", || site.scrape(&agent).contains("cni_shim_files_changed 1"));
    let said = agent.said();
    assert!(said.contains("10-pods.conflist is not as it was left") && !said.contains("nowhere"), "{said}");
}
