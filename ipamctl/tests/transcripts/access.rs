//! With credentials and TLS: who is let in, how tokens are handed over, whom the command line trusts.

use crate::service::Service;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

const GUARDED: [&str; 4] = ["--credentials", "required", "--bootstrap-token-file", "admin"];

fn guarded() -> Service {
    Service::start_with(tempfile::tempdir().unwrap(), &GUARDED)
}

/// Runs a command line in the service's directory, with only these variables.
fn ipamctl(service: &Service, variables: &[(&str, &str)], line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ipamctl"));
    command.env_clear().env("IPAM_SERVER", &service.url).envs(variables.iter().copied());
    command.args(line.split(' ')).current_dir(service.path("")).output().unwrap()
}

#[track_caller]
fn done(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    assert!(output.status.success(), "{output:?}");
    (text(&output.stdout), text(&output.stderr))
}

#[track_caller]
fn failed(output: &Output, status: i32, why: &str) {
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(status) && message.contains(why), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
}

#[test]
fn against_a_service_that_asks_for_credentials() {
    for who in ["admin", "viewer", "nobody"] {
        let service = guarded();
        let admin = service.read("admin").trim().to_owned();
        let (secret, _) =
            done(&ipamctl(&service, &[("IPAM_TOKEN", &admin)], "token create looker --role viewer"));
        let token = match who {
            "admin" => admin.as_str(),
            "viewer" => secret.trim(),
            _ => "",
        };
        trycmd::TestCases::new()
            .env("IPAM_SERVER", service.url.as_str())
            .env("IPAM_TOKEN", token)
            .env("COLUMNS", "100")
            .case(format!("tests/cmd/access/{who}.md"))
            .run();
    }
}

#[test]
fn a_token_is_handed_over_by_a_file_or_alone_on_stdout() {
    let service = guarded();
    let admin = "--token-file admin";
    let (data, message) =
        done(&ipamctl(&service, &[], &format!("{admin} token create alice --role viewer --out alice")));
    let alice = service.read("alice");
    assert!(alice.starts_with("ipam_viewer_") && alice.ends_with('\n'), "a line of its own");
    assert_eq!(service.path("alice").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(message.contains("written to alice"), "{message}");
    assert!(!data.contains("ipam_viewer_") && !message.contains("ipam_viewer_"));
    let json = format!("{admin} -o json token create bob --role viewer --out bob");
    let (data, _) = done(&ipamctl(&service, &[], &json));
    assert!(data.contains("\"name\": \"bob\"") && !data.contains("ipam_viewer_"), "{data}");
    done(&ipamctl(&service, &[], "--token-file alice pool list"));

    // A file that is there stays, and no token is made that nobody has.
    let again = ipamctl(&service, &[], &format!("{admin} token create carol --role viewer --out alice"));
    failed(&again, 1, "alice is there already");
    assert_eq!(service.read("alice"), alice);
    // Nor is a file left where there is no token for it.
    let refused = format!("{admin} token create service --role viewer --out carol");
    failed(&ipamctl(&service, &[], &refused), 1, "choose another name");
    let tried = format!("{admin} token create carol --role viewer --out carol --dry-run");
    assert!(done(&ipamctl(&service, &[], &tried)).1.contains("would be created"));
    assert!(!service.path("carol").exists());
    assert!(!done(&ipamctl(&service, &[], &format!("{admin} token list"))).0.contains("carol"));

    // Alone on stdout, or with all that is known of it.
    let (data, message) = done(&ipamctl(&service, &[], &format!("{admin} token create dan --role planner")));
    assert!(data.starts_with("ipam_planner_") && data.lines().count() == 1, "{data}");
    assert!(message.contains("it counts until 20"), "{message}");
    let (data, _) =
        done(&ipamctl(&service, &[], &format!("{admin} -o json token create eve --role planner")));
    assert!(data.contains("\"secret\": \"ipam_planner_"), "{data}");

    // Others can read it: said, and not shown.
    std::fs::set_permissions(service.path("alice"), PermissionsExt::from_mode(0o640)).unwrap();
    let (_, message) = done(&ipamctl(&service, &[], "--token-file alice pool list"));
    assert!(message.contains("chmod 600 alice"), "{message}");
    std::fs::write(service.path("junk"), "a\nb").unwrap();
    failed(&ipamctl(&service, &[], "--token-file junk pool list"), 1, "junk: ");
}

#[test]
fn a_revoked_token_counts_no_more() {
    let service = guarded();
    let admin = |line: &str| done(&ipamctl(&service, &[], &format!("--token-file admin {line}")));
    admin("token create alice --role viewer --out alice");
    done(&ipamctl(&service, &[], "--token-file alice pool list"));
    let list = admin("token list").0;
    let id = list.lines().find(|line| line.contains("alice")).unwrap().split(' ').next().unwrap();
    assert!(admin(&format!("token show {id}")).0.contains("State:              valid"));
    assert!(admin(&format!("token revoke {id} --dry-run")).1.contains("alice would be revoked"));
    done(&ipamctl(&service, &[], "--token-file alice pool list"));
    assert!(admin(&format!("token revoke {id}")).1.contains("alice revoked"));
    failed(&ipamctl(&service, &[], "--token-file alice pool list"), 1, "ask an admin for a new one");
    let events = admin(&format!("event list --subject token/{id}")).0;
    assert!(events.contains("create") && events.contains("delete"), "{events}");
}

#[test]
fn what_a_node_shows_is_told_of() {
    let service = guarded();
    let admin = |line: &str| done(&ipamctl(&service, &[], &format!("--token-file admin {line}"))).0;
    admin("vnet create prod --address-space 10.240.0.0/16");
    admin("subnet create prod/nodes --cidr 10.240.0.0/24");
    admin("pool create workers --subnet prod/nodes --max-pods 30 --nodes 1");
    admin("node register node-1 --pool workers --address 10.240.0.250");
    assert!(admin("node show node-1").contains("Credential:        -\n"));
    admin("token create node-1 --role node --node node-1 --out endless");
    assert!(admin("node show node-1").contains("Credential:        valid\n"));
    admin("token create node-1 --role node --node node-1 --expires 30d --out own");
    done(&ipamctl(&service, &[], "--token-file own node show node-1"));
    let list = admin("node list -o wide");
    assert!(list.contains("CREDENTIAL USED") && list.contains("valid, ends in "), "{list}");
    let other = ipamctl(&service, &[], "--token-file own node show node-2");
    failed(&other, 1, "this credential is node node-1's");
}

/// A CA and what it signed, in the directory: `ca`, and `NAME` with `NAME.key`.
fn sign(directory: &Path, ca: &str, names: &[&str]) {
    let write = |name: &str, text: &str| {
        std::fs::write(directory.join(name), text).unwrap();
        std::fs::set_permissions(directory.join(name), PermissionsExt::from_mode(0o600)).unwrap();
    };
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    write(ca, &params.self_signed(&key).unwrap().pem());
    let issuer = Issuer::new(params, key);
    for name in names {
        let key = KeyPair::generate().unwrap();
        let signed = CertificateParams::new([(*name).to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        write(name, &signed.pem());
        write(&format!("{name}.key"), &key.serialize_pem());
    }
}

#[test]
fn a_service_is_verified_by_its_ca_and_a_node_by_its_own() {
    let directory = tempfile::tempdir().unwrap();
    sign(directory.path(), "ca", &["127.0.0.1"]);
    sign(directory.path(), "nodes", &["node-1"]);
    sign(directory.path(), "strangers", &[]);
    let tls = ["--tls-cert", "127.0.0.1", "--tls-key", "127.0.0.1.key", "--client-ca", "nodes"];
    let service = Service::start_with(directory, &[&GUARDED[..], &tls].concat());
    assert!(service.url.starts_with("https://"), "{}", service.url);

    let token = service.read("admin");
    let admin = ("IPAM_TOKEN", token.as_str());
    done(&ipamctl(&service, &[admin], "--ca-file ca pool list"));
    done(&ipamctl(&service, &[admin, ("IPAM_CA_FILE", "ca")], "pool list"));
    // Without one the system's count: those of a file that is named as such.
    done(&ipamctl(&service, &[admin, ("SSL_CERT_FILE", "ca")], "pool list"));
    for strangers in [&[admin, ("SSL_CERT_FILE", "strangers")][..], &[admin, ("IPAM_CA_FILE", "strangers")]] {
        failed(
            &ipamctl(&service, strangers, "pool list"),
            1,
            "vouches for its certificate: check that --server",
        );
    }
    failed(
        &ipamctl(&service, &[admin], "--ca-file 127.0.0.1.key pool list"),
        1,
        "127.0.0.1.key: there is no cert",
    );
    failed(&ipamctl(&service, &[admin], "--ca-file nowhere pool list"), 1, "check --ca-file");

    let plain = service.url.replace("https", "http");
    failed(&ipamctl(&service, &[admin], &format!("--server {plain} pool list")), 1, "wants https://");

    let own = "--ca-file ca --cert-file node-1 --key-file node-1.key";
    failed(&ipamctl(&service, &[], &format!("{own} node show node-1")), 1, "there is no node node-1");
    failed(
        &ipamctl(&service, &[], &format!("{own} node show node-2")),
        1,
        "this credential is node node-1's",
    );
    failed(&ipamctl(&service, &[], "--ca-file ca --cert-file node-1 pool list"), 2, "together");
    let mixed = "--ca-file ca --cert-file node-1 --key-file 127.0.0.1.key pool list";
    failed(&ipamctl(&service, &[], mixed), 1, "not of this private key");
}
