//! A database that is reached over a network: by TLS, and not from one that others pose as.

use crate::store::{DATABASE, cluster, parse, plan};
use ipam_server::{
    clock::SystemClock,
    store::{DatabaseUrl, Store},
};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use sqlx::{AssertSqlSafe, Executor};
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    sync::Arc,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_asked_for_and_checked() {
    // An address of this process alone, so that every server can have the same port.
    let [.., high, low] = std::process::id().to_be_bytes();
    let address = format!("127.113.{high}.{low}");
    let cluster = cluster(&[&format!("listen_addresses={address}")]).await;
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([address.clone()]).unwrap();
    let stranger = generate_simple_self_signed([address.clone()]).unwrap();
    let dir = cluster.directory();
    let (ca, other) = (dir.join("ca.pem"), dir.join("other.pem"));
    fs::write(&ca, cert.pem()).unwrap();
    fs::write(&other, stranger.cert.pem()).unwrap();
    let owner = fs::metadata(dir).unwrap();
    let mut admin = cluster.admin().await;
    for (name, text) in [("ssl_cert_file", cert.pem()), ("ssl_key_file", signing_key.serialize_pem())] {
        let file = dir.join(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        chown(&file, Some(owner.uid()), Some(owner.gid())).unwrap();
        let sql = format!("ALTER SYSTEM SET {name} = '{}'", file.display());
        admin.execute(AssertSqlSafe(sql)).await.unwrap();
    }
    admin.execute("ALTER SYSTEM SET ssl = on").await.unwrap();
    admin.execute("SELECT pg_reload_conf()").await.unwrap();

    let open = |root: &std::path::Path| {
        let url = format!(
            "postgres://ipam@{address}/{DATABASE}?sslmode=verify-full&sslrootcert={}",
            root.display()
        );
        async move { Store::open(&parse::<DatabaseUrl>(&url), Arc::new(SystemClock)).await }
    };
    let refused = open(&other).await.unwrap_err().to_string();
    assert!(refused.to_lowercase().contains("certificate"), "{refused}");
    let store = open(&ca).await.unwrap();
    plan(&store, 1).await;
    let sql = "SELECT COUNT(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
        WHERE ssl AND application_name = 'ipam-server'";
    assert!(crate::store::number(&mut admin, sql).await > 0);
}
