//! The process and its surroundings: sockets, files, the environment, and what must never be written anywhere.

use crate::{
    process::command,
    running::{Answer, Client, Running, ended, first_token, unix, until},
};
use clap::CommandFactory;
use ipam_api::{token::Secret, wire::Role};
use ipam_server::config::Cli;
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixDatagram, process::CommandExt},
    path::Path,
    process::{Command, Output, Stdio},
};

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A start that is none: its exit status and what it said.
fn refused(dir: &Path, arguments: &[&str]) -> (i32, String) {
    let database = format!("sqlite://{}", text(&dir.join("ipam.db")));
    let mut serve = command(&[&["serve", "--database", &database], arguments].concat());
    let output = ended(serve.env("IPAM_LOG", "off"));
    assert!(output.stdout.is_empty());
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// What nobody (uid 65534) is told at a socket.
fn as_nobody(socket: &Path, authorization: &str) -> String {
    // Of perl-base, which is on every Debian: our own programs lie where that user may not look.
    const CLIENT: &str = r#"
        my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die "connect: $!";
        print $s "GET /v1/vnets HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n$ARGV[1]\r\n";
        $s->flush; print while <$s>;"#;
    let Output { status, stdout, stderr } = Command::new("/usr/bin/perl")
        .args(["-MIO::Socket::UNIX", "-e", CLIENT, &text(socket), authorization])
        .current_dir("/")
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap_or_else(|error| panic!("a client of another user needs root: {error}"));
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

#[test]
fn at_the_socket_the_kernel_says_who_asks() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let socket = dir.path().join("s");
    let listen = format!("unix://{}", text(&socket));
    // Nothing is asked for here by default, but the kernel's word.
    let service = Running::start(dir.path(), &["--listen", &listen]);
    assert_eq!(service.urls, [listen]);
    let mut own = unix(&socket);
    own.send("PUT /v1/vnets/prod", None, Some(&json!({"addressSpace": ["10.0.0.0/8"]}))).unwrap().expect(201);
    let events = own.send("GET /v1/events", None, None).unwrap().expect(200).json();
    let uid = nix::unistd::geteuid();
    assert_eq!(events["items"][0]["actor"], format!("uid:{uid}"));
    assert_eq!(events["items"][0]["source"], "unix socket");

    let spec = json!({"name": "reader", "role": "viewer"});
    let token = own.send("POST /v1/tokens", None, Some(&spec)).unwrap().expect(201).json();
    let token = token["secret"].as_str().unwrap().to_owned();
    let without = as_nobody(&socket, "");
    assert!(without.starts_with("HTTP/1.1 401 "), "{without}");
    let with = as_nobody(&socket, &format!("authorization: Bearer {token}\r\n"));
    assert!(with.starts_with("HTTP/1.1 200 ") && with.contains("\"prod\""), "{with}");
}

#[test]
fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let listen = format!("unix://{}", text(&socket));
    let start = || Running::start(dir.path(), &["--listen", &listen]);
    start().kill();
    assert!(socket.exists(), "a killed service leaves it");
    let service = start();
    unix(&socket).send("GET /livez", None, None).unwrap().expect(200);

    let (code, said) = refused(dir.path(), &["--listen", &listen]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("another service listens"), "{said}");
    unix(&socket).send("GET /livez", None, None).unwrap().expect(200);
    service.stop();
    assert!(!socket.exists(), "one that was told to stop leaves nothing");

    // What is no dead socket of ours is left alone.
    let datagrams = UnixDatagram::bind(&socket).unwrap();
    let (code, said) = refused(dir.path(), &["--listen", &listen]);
    assert_eq!(code, 1, "{said}");
    assert!(UnixDatagram::unbound().unwrap().connect(&socket).is_ok(), "it was there and listened");
    drop(datagrams);
    fs::remove_file(&socket).unwrap();
    fs::write(&socket, "a file").unwrap();
    let (code, said) = refused(dir.path(), &["--listen", &listen]);
    assert_eq!((code, fs::read_to_string(&socket).unwrap().as_str()), (1, "a file"), "{said}");
}

const REQUIRED: [&str; 4] = ["--listen", "127.0.0.1:0", "--credentials", "required"];

fn with_token_file(file: &Path) -> Vec<String> {
    let arguments = REQUIRED.iter().map(|argument| (*argument).to_owned());
    arguments.chain(["--bootstrap-token-file".to_owned(), text(file)]).collect()
}

#[test]
fn the_first_admins_token_is_written_once_for_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let arguments = with_token_file(&file);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // Not even the widest mask opens it to others.
    let database = format!("sqlite://{}", text(&dir.path().join("ipam.db")));
    let mut wide = Command::new("/bin/sh");
    let program = command(&[]).get_program().to_owned();
    wide.args(["-c", "umask 0; exec \"$@\"", "sh"]).arg(program).args(["serve", "--database", &database]);
    let service = Running::of(dir.path(), wide.args(&arguments), 1);
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let token = first_token(dir.path());
    assert_eq!(token.parse::<Secret>().unwrap().role(), Role::Admin);
    assert_eq!(fs::read_to_string(&file).unwrap(), format!("{token}\n"));
    service.plain().ask("GET /v1/tokens", &token, None).expect(200);
    service.plain().send("GET /v1/tokens", None, None).unwrap().expect(401);
    assert!(!service.log().contains(&token) && service.logged("the first admin's token is written") == 1);
    service.stop();

    let service = Running::start(dir.path(), &arguments);
    assert_eq!(first_token(dir.path()), token, "a second start leaves it");
    let listed = service.plain().ask("GET /v1/tokens", &token, None).expect(200).json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1, "{listed}");
    service.stop();

    // Killed between the file and the database: the file is there, the database knows nothing of it.
    for name in ["ipam.db", "ipam.db-wal", "ipam.db-shm"] {
        let _ = fs::remove_file(dir.path().join(name));
    }
    let service = Running::start(dir.path(), &arguments);
    assert_eq!(first_token(dir.path()), token);
    service.plain().ask("GET /v1/tokens", &token, None).expect(200);
    service.stop();

    // Killed while it wrote: the next start begins afresh.
    let other = tempfile::tempdir().unwrap();
    let file = other.path().join("token");
    fs::write(other.path().join("token.part"), "ipam_adm").unwrap();
    let arguments = with_token_file(&file);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let service = Running::start(other.path(), &arguments);
    service.plain().ask("GET /v1/tokens", &first_token(other.path()), None).expect(200);
    let mut left: Vec<_> =
        fs::read_dir(other.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.retain(|name| name.to_string_lossy().starts_with("token"));
    assert_eq!(left, ["token"]);
}

#[test]
fn a_file_that_is_not_its_own_is_no_first_admins() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let arguments = with_token_file(&file);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let admin = Secret::new(Role::Admin, [1; 32]).expose().to_owned();
    let viewer = Secret::new(Role::Viewer, [1; 32]).expose().to_owned();
    for (content, mode) in [
        ("", 0o600),
        ("my notes", 0o600),
        (&admin[..30], 0o600),
        (&viewer, 0o600),
        // Others can read it, or could have written it.
        (&admin, 0o644),
        (&admin, 0o620),
    ] {
        fs::write(&file, content).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let (code, said) = refused(dir.path(), &arguments);
        assert_eq!(code, 1, "{content:?} {mode:o}: {said}");
        assert!(said.contains("move it away"), "{said}");
        assert!(content.is_empty() || !said.contains(content), "{said}");
        assert_eq!(fs::read_to_string(&file).unwrap(), content, "it is left as it was");
    }
    let elsewhere = with_token_file(&dir.path().join("nowhere/token"));
    let elsewhere: Vec<&str> = elsewhere.iter().map(String::as_str).collect();
    assert_eq!(refused(dir.path(), &elsewhere).0, 1);
    // Without one the service starts, and says that nobody can do anything yet.
    let service = Running::start(dir.path(), &REQUIRED);
    assert_eq!(service.logged("there is no admin's token"), 1);
}

#[test]
fn what_others_can_reach_is_warned_of_and_asks() {
    let dir = tempfile::tempdir().unwrap();
    let open = ["--listen", "0.0.0.0:0"];
    let (code, said) = refused(dir.path(), &open);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("--insecure-no-tls") && said.contains("--tls-cert"), "{said}");
    let service = Running::start(dir.path(), &[&open[..], &["--insecure-no-tls"]].concat());
    assert_eq!(service.logged("without TLS others can read"), 1);
    assert_eq!(service.logged("without credentials whoever"), 0);
    service.plain().send("GET /v1/vnets", None, None).unwrap().expect(401);
    service.stop();
    let both = [&open[..], &["--insecure-no-tls", "--insecure-no-auth"]].concat();
    let service = Running::start(dir.path(), &both);
    assert_eq!(service.logged("without credentials whoever"), 1);
    service.plain().send("GET /v1/vnets", None, None).unwrap().expect(200);
    service.stop();
    // A listener for others makes every listener ask, this machine's too.
    let mixed = ["--listen", "127.0.0.1:0", "--listen", "0.0.0.0:0", "--insecure-no-tls"];
    let service = Running::start(dir.path(), &mixed);
    assert_eq!(service.urls.len(), 2);
    service.plain().send("GET /v1/vnets", None, None).unwrap().expect(401);
}

#[test]
fn it_is_told_by_a_file_by_the_environment_and_by_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let (config, token) = (dir.path().join("ipam.toml"), dir.path().join("token"));
    let socket = |name: &str| format!("unix://{}", text(&dir.path().join(name)));
    let database = |name: &str| format!("sqlite://{}", text(&dir.path().join(name)));
    let file = format!(
        "listen = [{:?}, {:?}]\ndatabase = {:?}\ncredentials = \"required\"\nlog-format = \"json\"\n",
        socket("a"),
        socket("b"),
        database("file.db")
    );
    fs::write(&config, file).unwrap();
    let by_file = Running::of(dir.path(), &mut command(&["serve", "--config", &text(&config)]), 2);
    assert_eq!(by_file.urls, [socket("a"), socket("b")]);
    assert!(dir.path().join("file.db").exists());
    until("the log is of JSON", || by_file.log().lines().any(|line| line.starts_with("{\"timestamp\"")));
    by_file.stop();

    // The environment is stronger than the file, and the command line stronger than the environment.
    let mut by_all = command(&["serve", "--listen", "127.0.0.1:0"]);
    by_all.env("IPAM_CONFIG", &config).env("IPAM_LISTEN", socket("c"));
    by_all.env("IPAM_DATABASE", database("env.db")).env("IPAM_BOOTSTRAP_TOKEN_FILE", &token);
    let service = Running::of(dir.path(), &mut by_all, 1);
    assert!(service.urls[0].starts_with("http://127.0.0.1:"), "{:?}", service.urls);
    assert!(dir.path().join("env.db").exists());
    service.plain().send("GET /v1/vnets", None, None).unwrap().expect(401);
    service.plain().ask("GET /v1/vnets", &first_token(dir.path()), None).expect(200);
}

#[test]
fn every_option_has_its_variable_but_those_that_open_the_door() {
    let cli = Cli::command();
    let serve = cli.find_subcommand("serve").unwrap();
    let mut count = 0;
    for option in serve.get_arguments().filter(|option| option.get_id() != "help") {
        let long = option.get_long().unwrap();
        let variable = option.get_env().map(|name| name.to_string_lossy().into_owned());
        let dangerous = long.starts_with("insecure");
        let wanted = (!dangerous).then(|| format!("IPAM_{}", long.to_uppercase().replace('-', "_")));
        assert_eq!(variable, wanted, "--{long}");
        count += 1;
    }
    assert!(count >= 13, "{count}");
}

/// Sends a request, and keeps what came back.
fn keep(client: &mut Client, request: &str, by: &str, body: Option<&Value>, all: &mut Vec<Answer>) -> u16 {
    let answer = client.send(request, Some(by), body).unwrap();
    all.push(answer);
    all.last().unwrap().status
}

#[test]
fn no_secret_is_written_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let mut arguments = with_token_file(&file);
    arguments.extend(["--log".to_owned(), "trace".to_owned()]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let service = Running::start(dir.path(), &arguments);
    let admin = first_token(dir.path());
    let bearer = format!("Bearer {admin}");
    let mut client = service.plain();
    let mut secrets = vec![admin.clone()];
    let mut make = |client: &mut Client, spec: Value| {
        let made = client.send("POST /v1/tokens", Some(&bearer), Some(&spec)).unwrap().expect(201);
        let secret = made.json()["secret"].as_str().unwrap().to_owned();
        // The creating answer shows it, and shows no other.
        assert_eq!(made.text.matches("ipam_").count(), 1);
        secrets.push(secret.clone());
        secret
    };
    let viewer = make(&mut client, json!({"name": "v", "role": "viewer"}));
    let short = make(&mut client, json!({"name": "s", "role": "admin", "expiresInSeconds": 1}));
    let join = make(
        &mut client,
        json!({"name": "j", "role": "join", "pool": "workers", "uses": 1, "expiresInSeconds": 60}),
    );
    let node = Secret::new(Role::Node, [9; 32]).expose().to_owned();
    let unknown = Secret::new(Role::Admin, [8; 32]).expose().to_owned();
    secrets.extend([node.clone(), unknown.clone()]);

    let mut all = Vec::new();
    let credential = json!({ "token": node });
    let put = "PUT /v1/nodes/node-1/credential";
    assert_eq!(keep(&mut client, put, &format!("Bearer {join}"), Some(&credential), &mut all), 201);
    assert_eq!(keep(&mut client, put, &format!("Bearer {join}"), Some(&credential), &mut all), 200);
    assert_eq!(keep(&mut client, "GET /v1/nodes/node-1", &format!("Bearer {node}"), None, &mut all), 404);
    assert_eq!(keep(&mut client, "GET /v1/nodes", &format!("Bearer {node}"), None, &mut all), 403);
    assert_eq!(keep(&mut client, "GET /v1/tokens", &format!("Bearer {viewer}"), None, &mut all), 403);
    for wrong in [
        format!("Bearer {unknown}"),
        format!("Bearer {admin}x"),
        format!("bearer  {admin} x"),
        format!("Basic {admin}"),
        admin.clone(),
        format!("Bearer {admin}, Bearer {viewer}"),
    ] {
        assert_eq!(keep(&mut client, "GET /v1/tokens", &wrong, None, &mut all), 401, "{wrong}");
    }
    until("the short one has expired", || {
        client.send("GET /v1/vnets", Some(&format!("Bearer {short}")), None).unwrap().status == 401
    });
    keep(&mut client, "GET /v1/vnets", &format!("Bearer {short}"), None, &mut all);
    // Where another text belongs.
    for (request, body) in [
        (format!("PUT /v1/nodes/{node}/credential"), Some(credential.clone())),
        (put.to_owned(), Some(json!({ "token": admin }))),
        (put.to_owned(), Some(json!({ "token": [admin] }))),
        (put.to_owned(), Some(json!({ "token": format!("{node}x") }))),
        (put.to_owned(), Some(json!({ node.clone(): node }))),
        (format!("{put}?token={node}"), Some(credential.clone())),
        (format!("GET /v1/tokens/{admin}"), None),
        (format!("DELETE /v1/tokens/{viewer}"), None),
        (format!("GET /v1/tokens?after={viewer}"), None),
        (format!("GET /v1/events?since={viewer}"), None),
        (format!("GET /{viewer}"), None),
        ("POST /v1/tokens".to_owned(), Some(json!({"name": "x", "role": viewer}))),
        ("POST /v1/tokens".to_owned(), Some(json!({"name": "x", "role": "viewer", "node": viewer}))),
        ("PUT /v1/vnets/v".to_owned(), Some(json!({"addressSpace": [viewer]}))),
    ] {
        let status = keep(&mut client, &request, &bearer, body.as_ref(), &mut all);
        assert!((400..500).contains(&status), "{request}: {:?}", all.last());
    }
    for list in ["GET /v1/tokens", "GET /v1/events", "GET /openapi.json", "GET /readyz"] {
        assert_eq!(keep(&mut client, list, &bearer, None, &mut all), 200);
    }
    let line = fs::read(format!("/proc/{}/cmdline", service.pid())).unwrap();
    let environment = fs::read(format!("/proc/{}/environ", service.pid())).unwrap();
    let log_before_end = service.log();
    assert!(
        log_before_end.contains("TRACE") && log_before_end.contains("not let in"),
        "the log is a full one"
    );
    let pid = service.pid();
    service.stop();
    let log = fs::read_to_string(dir.path().join("log")).unwrap();
    assert!(log.len() >= log_before_end.len());
    for secret in &secrets {
        // All of its randomness, however it is quoted.
        let random = &secret[secret.len() - 43..];
        let places =
            [("the log", log.as_bytes()), ("the command line", &line), ("the environment", &environment)];
        for (place, bytes) in places {
            let found = bytes.windows(random.len()).any(|at| at == random.as_bytes());
            assert!(!found, "{secret:?} is in {place} of {pid}");
        }
        for answer in &all {
            assert!(!answer.text.contains(random) && !answer.head.contains(random), "{secret}: {answer:?}");
        }
    }
}

#[test]
fn help_names_every_variable_and_shows_no_value_of_the_database() {
    let output = command(&["serve", "--help"])
        .env("IPAM_DATABASE", "postgres://ipam:secret@db/ipam")
        .stdout(Stdio::piped())
        .output()
        .unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(help.contains("IPAM_DATABASE") && !help.contains("secret"), "{help}");
}
