//! Whether what the database holds obeys the rules, agrees with itself and with what nodes last told.
//!
//! Constraints make most of what is looked for impossible: it is found where somebody switched them off, where a disk or
//! a restore damaged the file, or where the code has a defect that no constraint can express. What is found has a stable
//! code, a sentence, and its cure; a repair does only what cannot give an address a second holder.

mod engine;
mod invariants;
mod lines;
mod repair;
mod told;

use super::{
    Result, Store,
    db::{DatabaseUrl, Db, Sql, Tx, args},
    recovery,
};
use ipam_api::wire::{Consistency, Finding, Recovery, Severity};
use jiff::Timestamp;

/// Of one code no more are listed.
pub(super) const MOST: usize = 100;

/// One thing that is looked for: rows of what it is about and what is wrong there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Check {
    pub(super) code: &'static str,
    pub(super) severity: Severity,
    pub(super) cure: &'static str,
    pub(super) repairable: bool,
    /// Columns: object, detail. It may ask for the time now, in ms, as `$1`.
    pub(super) sql: Sql,
}

/// What `ipam-server doctor` says of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// Present while a restored backup is not looked after.
    pub recovery: Option<Recovery>,
    /// What was found, the worst first.
    pub findings: Vec<Finding>,
}

impl Store {
    /// Looks at a database without changing anything; a service on it goes on meanwhile.
    ///
    /// # Errors
    /// It is not there, cannot be read or is of another version.
    pub async fn diagnose(url: &DatabaseUrl, now: Timestamp) -> Result<Diagnosis> {
        let db = Db::look(url).await?;
        db.check_version().await?;
        let mut tx = db.survey().await?.patient();
        let mut findings = engine::look(&mut tx).await?;
        if let DatabaseUrl::Sqlite(file) = url {
            findings.extend(engine::file(file));
        }
        findings.extend(all(&mut tx, now).await?);
        let recovery = recovery::state(&mut tx).await?;
        drop(tx);
        db.close().await;
        Ok(Diagnosis { recovery, findings: sorted(findings) })
    }

    /// The codes of all that [`Store::consistency`] looks for.
    #[must_use]
    pub fn finding_codes() -> Vec<&'static str> {
        let checks = invariants::CHECKS.iter().chain(told::CHECKS).map(|check| check.code);
        checks.chain(lines::CODES).collect()
    }

    /// Whether what the service holds agrees with itself and with what its nodes last told.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn consistency(&self) -> Result<Consistency> {
        // It takes long, and whoever else goes through all tables has a connection left.
        let _alone = self.checking.lock().await;
        let at = self.clock.now();
        let mut tx = self.db.survey().await?.patient();
        let findings = sorted(all(&mut tx, at).await?);
        Ok(Consistency { at, recovery: recovery::state(&mut tx).await?, repaired: Vec::new(), findings })
    }
}

/// Everything but the database's own health.
async fn all(tx: &mut Tx, now: Timestamp) -> Result<Vec<Finding>> {
    let mut findings = invariants(tx).await?;
    for check in told::CHECKS {
        findings.extend(run(tx, check, now).await?);
    }
    Ok(findings)
}

/// What breaks a rule whatever the time is and whatever nodes tell.
pub(super) async fn invariants(tx: &mut Tx) -> Result<Vec<Finding>> {
    let mut findings = lines::look(tx).await?;
    for check in invariants::CHECKS {
        findings.extend(run(tx, check, Timestamp::UNIX_EPOCH).await?);
    }
    Ok(findings)
}

async fn run(tx: &mut Tx, check: &Check, now: Timestamp) -> Result<Vec<Finding>> {
    // One that does not depend on the time has no place for it.
    let args = if check.sql.sqlite.contains("$1") { args![now.as_millisecond()] } else { args![] };
    let rows: Vec<(String, String)> = tx.fetch_all(check.sql, args).await?;
    Ok(rows
        .into_iter()
        .take(MOST)
        .map(|(object, detail)| Finding {
            code: check.code.to_owned(),
            severity: check.severity,
            object,
            detail,
            cure: check.cure.to_owned(),
            repairable: check.repairable,
        })
        .collect())
}

fn sorted(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.sort_by(|a, b| (a.severity, &a.code, &a.object).cmp(&(b.severity, &b.code, &b.object)));
    findings
}
