//! Every credential is replaced while a client goes on asking, and no request of it fails.

use crate::{
    process::command,
    running::{Ca, Client, Loop, Running, ended, first_token, tls, trusting, until},
};
use ipam_api::{token::Secret, wire::Role};
use rustls::ClientConfig;
use serde_json::json;
use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

const UNUSABLE: &str = "new certificates are not usable: the old ones stay";
const ANEW: &str = "certificates are read anew";

/// Puts another text in the place of a file's at once: one change is seen once.
fn replace(file: &Path, text: &str) {
    let beside = file.with_extension("new");
    fs::write(&beside, text).unwrap();
    fs::rename(&beside, file).unwrap();
}

/// Serves by TLS with the files of a directory, to those with a credential; `more` arguments follow.
fn serve(dir: &Path, more: &[&str]) -> Running {
    let at = |name: &str| dir.join(name).display().to_string();
    let (cert, key, token) = (at("cert.pem"), at("key.pem"), at("token"));
    let mut all = vec![
        "--listen",
        "127.0.0.1:0",
        "--tls-cert",
        &cert,
        "--tls-key",
        &key,
        "--credentials",
        "required",
        "--bootstrap-token-file",
        &token,
    ];
    all.extend(more);
    Running::start(dir, &all)
}

/// A VNet, a subnet and a pool `workers`, by an admin.
fn furnish(client: &mut Client, admin: &str) {
    for (path, body) in [
        ("/v1/vnets/prod", json!({"addressSpace": ["10.240.0.0/12"]})),
        ("/v1/vnets/prod/subnets/nodes", json!({"cidrs": ["10.240.0.0/16"]})),
        ("/v1/pools/workers", json!({"subnets": [{"subnet": "prod/nodes"}], "maxPods": 30, "nodes": 3})),
    ] {
        client.ask(&format!("PUT {path}"), admin, Some(&body)).expect(201);
    }
}

#[test]
fn the_services_certificate_and_its_ca_are_replaced_while_clients_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (old_ca, new_ca) = (Ca::new("old"), Ca::new("new"));
    let (old, new) = (old_ca.leaf(&["127.0.0.1"], 1), new_ca.leaf(&["127.0.0.1"], 2));
    old.write(dir.path());
    let service = serve(dir.path(), &[]);
    assert!(service.urls[0].starts_with("https://127.0.0.1:"), "{:?}", service.urls);
    let (address, admin) = (service.address(), first_token(dir.path()));
    // Who trusts another CA alone, or speaks no TLS, gets no answer.
    assert!(tls(address, &trusting(&[&new_ca], None)).is_err());
    assert!(service.plain().send("GET /livez", None, None).is_err());

    // First every client trusts both; a new connection a request, so that each meets what is served then.
    let both = trusting(&[&old_ca, &new_ca], None);
    let client = Loop::start(move || {
        let (mut client, shown) = tls(address, &both).map_err(|error| error.to_string())?;
        let answer = client.send("GET /v1/vnets", Some(&format!("Bearer {admin}")), None);
        match answer.map_err(|error| error.to_string())? {
            answer if answer.status == 200 => Ok(shown),
            other => Err(format!("{other:?}")),
        }
    });
    client.comes_to(|shown| *shown == old.der());
    // The files change one after the other, as some programs write them.
    replace(&dir.path().join("key.pem"), &new.key);
    until("the half is seen", || service.logged(UNUSABLE) == 1);
    client.goes_on();
    assert_eq!(service.logged(ANEW), 0);
    replace(&dir.path().join("cert.pem"), &new.cert);
    client.comes_to(|shown| *shown == new.der());
    assert_eq!(service.logged(ANEW), 1);

    let cert = dir.path().join("cert.pem");
    for (seen, broken) in
        [Some("-----BEGIN CERTIFICATE-----\nAAAA"), Some(""), Some(&*old.cert), None].into_iter().enumerate()
    {
        match broken {
            Some(text) => replace(&cert, text),
            None => fs::remove_file(&cert).unwrap(),
        }
        until("the broken file is seen", || service.logged(UNUSABLE) == seen + 2);
        client.goes_on();
    }
    client.end();
    let (_, shown) = service.tls(&trusting(&[&new_ca], None)).unwrap();
    assert_eq!(shown, new.der(), "the last good one stays");
    let log = service.log();
    assert!(!log.contains("PRIVATE KEY") && !log.contains(new.key.lines().nth(1).unwrap()), "{log}");
}

#[test]
fn a_start_without_usable_certificates_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::new("ca");
    let (leaf, other) = (ca.leaf(&["127.0.0.1"], 1), ca.leaf(&["127.0.0.1"], 2));
    let at = |name: &str| dir.path().join(name).display().to_string();
    let database = format!("sqlite://{}", at("ipam.db"));
    let files: [(&str, String); 7] = [
        ("cert.pem", leaf.cert.clone()),
        ("key.pem", leaf.key),
        ("other-key.pem", other.key),
        ("ca.pem", ca.pem()),
        ("crl.pem", ca.crl(&[])),
        ("empty", String::new()),
        ("text", "no PEM".to_owned()),
    ];
    for (name, text) in &files {
        fs::write(at(name), text).unwrap();
    }
    let base = ["cert.pem", "key.pem", "ca.pem", "crl.pem"];
    for (place, bad) in [
        (0, "empty"),
        (0, "text"),
        (0, "missing"),
        (0, "key.pem"),
        (1, "empty"),
        (1, "text"),
        (1, "cert.pem"),
        (1, "other-key.pem"),
        (2, "empty"),
        (2, "text"),
        (3, "empty"),
        (3, "text"),
        (3, "ca.pem"),
        (3, "missing"),
    ] {
        let mut names = base;
        names[place] = bad;
        let [cert, key, ca, crl] = names.map(at);
        let mut serve = command(&[
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--database",
            &database,
            "--tls-cert",
            &cert,
            "--tls-key",
            &key,
            "--client-ca",
            &ca,
            "--client-crl",
            &crl,
        ]);
        let output = ended(serve.env("IPAM_LOG", "off"));
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{names:?}: {text}");
        assert!(text.contains(bad) && !text.contains("PRIVATE"), "{names:?}: {text}");
        assert!(output.stdout.is_empty());
    }
}

/// Asks for a node by a new connection: the status, or `None` where the connection came to nothing.
fn ask_by(service: &Running, config: &Arc<ClientConfig>, node: &str) -> Option<u16> {
    let (mut client, _) = service.tls(config).ok()?;
    client.send(&format!("GET /v1/nodes/{node}"), None, None).ok().map(|answer| answer.status)
}

#[test]
fn a_client_certificate_is_the_node_that_it_names_until_it_is_revoked() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, clients, strangers) = (Ca::new("service"), Ca::new("nodes"), Ca::new("strangers"));
    ca.leaf(&["127.0.0.1"], 1).write(dir.path());
    let at = |name: &str| dir.path().join(name);
    fs::write(at("client-ca.pem"), clients.pem()).unwrap();
    fs::write(at("crl.pem"), clients.crl(&[77])).unwrap();
    let files = [at("client-ca.pem").display().to_string(), at("crl.pem").display().to_string()];
    let service = serve(dir.path(), &["--client-ca", &files[0], "--client-crl", &files[1]]);
    let admin = first_token(dir.path());
    let (mut by_admin, _) = service.tls(&trusting(&[&ca], None)).unwrap();
    furnish(&mut by_admin, &admin);

    let with = |issuer: &Ca, names: &[&str], serial| trusting(&[&ca], Some(&issuer.leaf(names, serial)));
    let node_1 = with(&clients, &["node-1"], 10);
    let node_2 = with(&clients, &["node-2"], 11);
    let spec = json!({"pool": "workers", "addresses": ["10.240.1.10"]});
    let (mut open, _) = service.tls(&node_1).unwrap();
    open.send("PUT /v1/nodes/node-1", None, Some(&spec)).unwrap().expect(201);
    open.send("GET /v1/nodes/node-1", None, None).unwrap().expect(200);
    open.send("GET /v1/nodes", None, None).unwrap().expect(403);
    assert_eq!(ask_by(&service, &node_2, "node-1"), Some(403));
    assert_eq!(ask_by(&service, &node_2, "node-2"), Some(404));
    let event = by_admin.ask("GET /v1/events?subject=node/node-1", &admin, None).expect(200).json();
    assert_eq!(event["items"][0]["actor"], "node:node-1");
    assert_eq!(event["items"][0].get("token"), None);

    // Who names no node or several is nobody, also at its own name.
    for names in [&["node-1", "node-2"][..], &[], &["10.0.0.1"], &["*.example"], &["Node-1"]] {
        let config = with(&clients, names, 20);
        assert_eq!(ask_by(&service, &config, "node-1"), Some(401), "{names:?}");
        let (mut client, _) = service.tls(&config).unwrap();
        client.ask("GET /v1/nodes/node-1", &admin, None).expect(200);
    }
    // Another CA's word is none, and the handshake ends there; no certificate is no harm, and no credential.
    assert_eq!(ask_by(&service, &with(&strangers, &["node-1"], 10), "node-1"), None);
    assert_eq!(ask_by(&service, &with(&ca, &["node-1"], 10), "node-1"), None);
    assert_eq!(ask_by(&service, &trusting(&[&ca], None), "node-1"), Some(401));
    assert_eq!(ask_by(&service, &with(&clients, &["node-1"], 77), "node-1"), None, "revoked from the start");

    // A list that is none revokes nobody, so the old one stays.
    for (seen, junk) in ["", "no list", &clients.pem()].into_iter().enumerate() {
        replace(&at("crl.pem"), junk);
        until("the junk is seen", || service.logged(UNUSABLE) == seen + 1);
        assert_eq!(ask_by(&service, &with(&clients, &["node-1"], 77), "node-1"), None, "{junk:?}");
    }
    replace(&at("crl.pem"), &clients.crl(&[77, 10]));
    until("it is revoked", || ask_by(&service, &node_1, "node-1").is_none());
    assert_eq!(ask_by(&service, &node_2, "node-2"), Some(404), "the others go on");
    // As SECURITY.md says: what was open counts until it ends.
    open.send("GET /v1/nodes/node-1", None, None).unwrap().expect(200);
    // A new certificate of the same node.
    assert_eq!(ask_by(&service, &with(&clients, &["node-1"], 12), "node-1"), Some(200));
}

#[test]
fn the_ca_of_client_certificates_is_replaced_while_nodes_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, old, new) = (Ca::new("service"), Ca::new("old nodes"), Ca::new("new nodes"));
    ca.leaf(&["127.0.0.1"], 1).write(dir.path());
    let file = dir.path().join("client-ca.pem");
    fs::write(&file, old.pem()).unwrap();
    let service = serve(dir.path(), &["--client-ca", &file.display().to_string()]);
    let address = service.address();
    let by_old = trusting(&[&ca], Some(&old.leaf(&["node-1"], 10)));
    let by_new = trusting(&[&ca], Some(&new.leaf(&["node-1"], 11)));
    assert_eq!(ask_by(&service, &by_new, "node-1"), None);

    // The node's certificate, as its agent has it on disk.
    let own = Arc::new(Mutex::new(Arc::clone(&by_old)));
    let shows = Arc::clone(&own);
    let node = Loop::start(move || {
        let config = Arc::clone(&shows.lock().unwrap());
        let (mut client, _) = tls(address, &config).map_err(|error| error.to_string())?;
        let answer = client.send("GET /v1/nodes/node-1", None, None).map_err(|error| error.to_string())?;
        if answer.status == 404 { Ok(()) } else { Err(format!("{answer:?}")) }
    });
    node.goes_on();
    replace(&file, &format!("{}{}", old.pem(), new.pem()));
    until("both are trusted", || ask_by(&service, &by_new, "node-1") == Some(404));
    node.goes_on();
    *own.lock().unwrap() = by_new;
    node.goes_on();
    replace(&file, &new.pem());
    until("the old one is not", || ask_by(&service, &by_old, "node-1").is_none());
    node.goes_on();
    node.end();
}

/// A plain service that asks for credentials, with a pool, and its first admin's token.
fn plain(dir: &Path) -> (Running, String) {
    let token = dir.join("token").display().to_string();
    let arguments =
        ["--listen", "127.0.0.1:0", "--credentials", "required", "--bootstrap-token-file", &token];
    let service = Running::start(dir, &arguments);
    let admin = first_token(dir);
    furnish(&mut service.plain(), &admin);
    (service, admin)
}

/// A client that reads its token anew for every request, as ours do from their files.
fn asking(service: &Running, request: &'static str, token: &Arc<Mutex<String>>) -> Loop<()> {
    let (mut client, token) = (service.plain(), Arc::clone(token));
    Loop::start(move || {
        let token = token.lock().unwrap().clone();
        match client.ask(request, &token, None) {
            answer if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
}

#[test]
fn an_admins_token_is_replaced_without_a_failed_request() {
    let dir = tempfile::tempdir().unwrap();
    let (service, first) = plain(dir.path());
    let file = Arc::new(Mutex::new(first.clone()));
    let client = asking(&service, "GET /v1/tokens", &file);
    client.goes_on();
    let mut by_hand = service.plain();
    let spec = json!({"name": "alice", "role": "admin", "expiresInSeconds": 86400});
    let made = by_hand.ask("POST /v1/tokens", &first, Some(&spec)).expect(201).json();
    let second = made["secret"].as_str().unwrap().to_owned();
    file.lock().unwrap().clone_from(&second);
    client.goes_on();
    let id = first.parse::<Secret>().unwrap().hash().id().unwrap();
    by_hand.ask(&format!("DELETE /v1/tokens/{id}"), &second, None).expect(204);
    // At once, on every connection, those that were open included.
    by_hand.ask("GET /v1/tokens", &first, None).expect(401);
    service.plain().ask("GET /v1/tokens", &first, None).expect(401);
    client.goes_on();
    client.end();
    // Nor by a start anew, as long as there is another admin.
    service.stop();
    let token = dir.path().join("token").display().to_string();
    let again = ["--listen", "127.0.0.1:0", "--credentials", "required", "--bootstrap-token-file", &token];
    let service = Running::start(dir.path(), &again);
    service.plain().ask("GET /v1/tokens", &first, None).expect(401);
    let mut client = service.plain();
    client.ask("GET /v1/tokens", &second, None).expect(200);

    // And where there is none, the file that was left brings the revoked one not back.
    let id = second.parse::<Secret>().unwrap().hash().id().unwrap();
    client.ask(&format!("DELETE /v1/tokens/{id}"), &second, None).expect(204);
    service.stop();
    let database = format!("sqlite://{}", dir.path().join("ipam.db").display());
    let mut serve = command(&[&["serve", "--database", &database], &again[..]].concat());
    let output = ended(serve.env("IPAM_LOG", "off"));
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("revoked") && text.contains("move the file away") && !text.contains(&first),
        "{text}"
    );
    fs::remove_file(dir.path().join("token")).unwrap();
    let service = Running::start(dir.path(), &again);
    service.plain().ask("GET /v1/tokens", &first, None).expect(401);
    service.plain().ask("GET /v1/tokens", &first_token(dir.path()), None).expect(200);
}

#[test]
fn join_tokens_and_nodes_tokens_are_replaced_without_a_failed_request() {
    let dir = tempfile::tempdir().unwrap();
    let (service, admin) = plain(dir.path());
    let mut by_admin = service.plain();
    let mut join = |name: &str| {
        let spec =
            json!({"name": name, "role": "join", "pool": "workers", "uses": 2, "expiresInSeconds": 600});
        let made = by_admin.ask("POST /v1/tokens", &admin, Some(&spec)).expect(201).json();
        (made["id"].as_str().unwrap().to_owned(), made["secret"].as_str().unwrap().to_owned())
    };
    let ((first_id, first_join), (_, second_join)) = (join("spring"), join("summer"));
    let own = |byte| Secret::new(Role::Node, [byte; 32]).expose().to_owned();
    let mut node = service.plain();
    let mut swap = |by: &str, name: &str, token: &str| {
        node.ask(&format!("PUT /v1/nodes/{name}/credential"), by, Some(&json!({ "token": token }))).status
    };
    assert_eq!(swap(&first_join, "node-1", &own(1)), 201);
    let spec = json!({"pool": "workers", "addresses": ["10.240.1.10"]});
    service.plain().ask("PUT /v1/nodes/node-1", &own(1), Some(&spec)).expect(201);
    let file = Arc::new(Mutex::new(own(1)));
    let client = asking(&service, "GET /v1/nodes/node-1", &file);
    client.goes_on();

    // The join token goes; those who joined with it stay, and others join with its successor.
    service.plain().ask(&format!("DELETE /v1/tokens/{first_id}"), &admin, None).expect(204);
    assert_eq!(swap(&first_join, "node-2", &own(2)), 401);
    assert_eq!(swap(&second_join, "node-2", &own(2)), 201);
    client.goes_on();

    // The node keeps its new token, then uses it; the old one counts meanwhile, and an hour more.
    assert_eq!(swap(&own(1), "node-1", &own(3)), 201);
    client.goes_on();
    assert_eq!(swap(&own(1), "node-1", &own(3)), 200, "the answer was lost");
    *file.lock().unwrap() = own(3);
    client.goes_on();
    let old = own(1).parse::<Secret>().unwrap().hash().id().unwrap();
    let old = format!("/v1/tokens/{old}");
    let shown = service.plain().ask(&format!("GET {old}"), &admin, None).expect(200).json();
    assert!(shown["expiresAt"].is_string(), "{shown}");
    // Who fears for it does not wait for the hour.
    service.plain().ask(&format!("DELETE {old}"), &admin, None).expect(204);
    service.plain().ask("GET /v1/nodes/node-1", &own(1), None).expect(401);
    client.goes_on();
    client.end();
}
