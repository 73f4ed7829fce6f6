use crate::{
    database::{Database, Make},
    figures::Figures,
    filling::{Size, make_pool, own},
    load::{self, Grower, Plot},
    pgbench::{Pgbench, Table},
    reads,
    service::Service,
};
use anyhow::{Context, Result, ensure};
use std::{
    net::Ipv4Addr,
    num::NonZeroUsize,
    time::{Duration, Instant},
};

/// Clients at once, where the figures are compared.
fn clients() -> Result<Vec<usize>> {
    let asked = std::env::var("BENCH_CLIENTS").unwrap_or_else(|_| "1 8 64".to_owned());
    let asked: Option<Vec<NonZeroUsize>> = asked.split_whitespace().map(|word| word.parse().ok()).collect();
    let asked = asked.filter(|asked| !asked.is_empty()).context("BENCH_CLIENTS: numbers, as in \"8 64\"")?;
    Ok(asked.into_iter().map(NonZeroUsize::get).collect())
}

fn time() -> Duration {
    let seconds = std::env::var("BENCH_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(10))
}

fn tell(line: &str) {
    println!("{line}");
}

/// Rates over PostgreSQL, each beside pgbench's at as many clients.
pub(crate) async fn against_pgbench() -> Result<()> {
    let database = Database::postgres().await;
    let Database::Postgres(cluster) = &database else { return Ok(()) };
    let service = Service::start(&database).await?;
    let token = service.admin_token()?;
    let mut plots = Size::SMALL.fill(&database, &service, &token).await?;
    let pgbench = Pgbench::prepare(&database).await?;
    tell("PostgreSQL, allocations over HTTP beside pgbench -M prepared (one row a transaction)");
    for clients in clients()? {
        let theirs = pgbench.run(&database, cluster, Table::Bare, clients, time()).await?;
        let keyed = pgbench.run(&database, cluster, Table::Keyed, clients, time()).await?;
        let (ours, work) = worked(&service, &token, &mut plots, clients).await?;
        let (ratio, of_keyed) = (ours.rate() / theirs, ours.rate() / keyed);
        tell(&format!(
            "  {clients:2} clients  {ours}  pgbench {theirs:6.0}/s: {ratio:.2}x, with keys {keyed:6.0}/s: {of_keyed:.2}x  ({work})"
        ));
    }
    Ok(())
}

/// Rates over SQLite.
pub(crate) async fn embedded() -> Result<()> {
    let database = Database::sqlite()?;
    let service = Service::start(&database).await?;
    let token = service.admin_token()?;
    let mut plots = Size::SMALL.fill(&database, &service, &token).await?;
    tell("SQLite, allocations over HTTP");
    for clients in clients()? {
        let (ours, work) = worked(&service, &token, &mut plots, clients).await?;
        tell(&format!("  {clients:2} clients  {ours}  ({work})"));
    }
    Ok(())
}

/// What must not grow: the same at both sizes on both databases.
pub(crate) async fn at_size() -> Result<()> {
    for make in [Make::Sqlite, Make::Postgres] {
        tell(&format!("{make:?}, 1,000 allocations on 100 nodes, then 1,000,000 on 100,000"));
        let small = sized(&make.database().await?, Size::SMALL).await?;
        let large = sized(&make.database().await?, Size::LARGE).await?;
        tell(&format!("  allocations at size: {:.2}x", large.rate / small.rate));
        tell(&format!("  a claim at size takes {:.2}x", large.claim / small.claim));
    }
    Ok(())
}

/// What is compared of two sizes.
struct Sized {
    /// Allocations a second of 64 clients.
    rate: f64,
    /// Milliseconds, median.
    claim: f64,
}

async fn sized(database: &Database, size: Size) -> Result<Sized> {
    let service = Service::start(database).await?;
    let token = service.admin_token()?;
    let began = Instant::now();
    let mut plots = size.fill(database, &service, &token).await?;
    drop(service);
    let service = Service::start(database).await?;
    let admin = service.client(Some(&token))?;
    tell(&format!(
        "  filled in {:.0} s; ready {:.2} s after its start, {:.0} MB",
        began.elapsed().as_secs_f64(),
        service.started_in.as_secs_f64(),
        service.memory()?
    ));
    let load = measure(&service, &mut plots, 64).await?;
    tell(&format!("  64 clients        {load}, then {:.0} MB", service.memory()?));

    let base = Ipv4Addr::new(10, 160, 0, 0);
    let names = |from: u32, to: u32| (from..to).map(|n| Ok((format!("c{n}").parse()?, own(base, n))));
    let pool = "claims".parse()?;
    make_pool(&service, &token, "claims", "10.160.0.0/13", (2000, 250)).await?;
    let nodes: Vec<_> = names(0, 900).collect::<Result<_>>()?;
    let claims = load::claim(&admin, &pool, nodes.into_iter(), 1).await?;
    tell(&format!("  claims of 250     {claims}"));
    let nodes: Vec<_> = names(900, 1900).collect::<Result<_>>()?;
    let next = load::claim(&admin, &pool, nodes.into_iter(), 64).await?;
    tell(&format!("  next of 900, 64x  {next}"));

    let reads::Asked { of_a_new_plan, often, after_a_pause } = reads::capacity(&admin, 50).await?;
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    tell(&format!(
        "  capacity          {often}  (of a new plan {:.1}, after a pause {:.1} ms)",
        ms(of_a_new_plan),
        ms(after_a_pause)
    ));
    for path in ["/v1/allocations", "/v1/nodes", "/v1/events", "/v1/nodes/n1/allocations"] {
        let (rows, pages) = reads::pages(&service, &token, path).await?;
        tell(&format!("  {path:17} {pages}  slowest {:.1} ms, {rows} rows", pages.ms(100.0)));
    }
    tell(&format!("  {:.0} MB after all", service.memory()?));
    Ok(Sized { rate: load.rate(), claim: claims.ms(50.0) })
}

/// A rate, and what the service did for it.
async fn worked(
    service: &Service,
    token: &str,
    plots: &mut Vec<Plot>,
    clients: usize,
) -> Result<(Figures, String)> {
    let mut crew = warm(service, plots, clients).await?;
    let (mutations, batches) = service.batches(token).await?;
    let before = service.processor()?;
    let figures = load::allocate(&mut crew, time()).await?;
    let busy = (service.processor()? - before).as_secs_f64() / figures.took.as_secs_f64();
    let after = service.batches(token).await?;
    let of_a_batch = (after.0 - mutations) / (after.1 - batches);
    Ok((figures, format!("service {:.0} % of a core, {of_a_batch:.1} a batch", busy * 100.0)))
}

async fn measure(service: &Service, plots: &mut Vec<Plot>, clients: usize) -> Result<Figures> {
    load::allocate(&mut warm(service, plots, clients).await?, time()).await
}

/// Clients with a share of the nodes, after a little that does not count, so that all is warm.
async fn warm(service: &Service, plots: &mut Vec<Plot>, clients: usize) -> Result<Vec<Grower>> {
    let share = plots.len().min(128 + clients * 3);
    ensure!(share >= clients, "there are not so many nodes left: give BENCH_CLIENTS fewer numbers");
    let share = plots.split_off(plots.len() - share);
    let mut crew = Grower::crew(service.address(), clients, share).await?;
    load::allocate(&mut crew, Duration::from_millis(500)).await?;
    Ok(crew)
}
