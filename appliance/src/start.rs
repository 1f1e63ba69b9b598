//! What `hsmd` does from its first moment to its last.
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::appliance::Appliance;
use crate::config::{Config, LogFormat};
use crate::error::Error;
use crate::expiry::{self, Told};
use crate::greeting::SOFTWARE;
use crate::handler::steady_ms;
use crate::log::{self, Scribe};
use crate::server::Server;

/// After so many tasks a worker looks at those that came from elsewhere.
const GLOBAL_QUEUE_INTERVAL: u32 = 31;

/// Runs the server until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start; the text is for the operator.
pub fn run(config_file: &Path) -> Result<(), Error> {
    protect_process()?;
    let config = Config::load(config_file)?;
    let scribe = start_log(&config)?;
    let workers = config.workers;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        // Fixed: a worker that tunes it does floating-point work after each task.
        .global_queue_interval(GLOBAL_QUEUE_INTERVAL)
        .enable_all()
        .thread_name("hsmd")
        .build()
        .map_err(|error| Error::environment(format!("threads cannot be started: {error}")))?;
    let outcome = runtime.block_on(serve(config));
    // Blocking work that outlived the grace period is not waited for: it is durable or it was never acknowledged.
    runtime.shutdown_background();
    drop(scribe);
    outcome
}

async fn serve(config: Config) -> Result<(), Error> {
    // Installed before anything is opened, so that an early signal stops in order as well.
    let no_signal = |error| Error::environment(format!("signals cannot be waited for: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signal)?;
    let appliance = Arc::new(Appliance::open(config)?);
    let server = Server::start(appliance.clone()).await?;
    tracing::info!(software = SOFTWARE, data_dir = %appliance.config.data_dir.display(), "ready");
    let housekeeping =
        [tokio::spawn(keep_house(appliance.clone())), tokio::spawn(keep_clean(appliance.clone()))];
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping: running requests are finished, links are closed");
    housekeeping.iter().for_each(|task| task.abort());
    server.stop().await;
    tracing::info!("stopped");
    Ok(())
}

/// Once an hour, off the threads that serve.
async fn keep_house(appliance: Arc<Appliance>) {
    let mut hour = tokio::time::interval(Duration::from_secs(3600));
    let told = Arc::new(Mutex::new(Told::default()));
    loop {
        hour.tick().await;
        let (appliance, told) = (appliance.clone(), told.clone());
        // A panic in it is logged by its own report and must not end the hours to come.
        let _ = tokio::task::spawn_blocking(move || {
            appliance.partitions.tidy(steady_ms());
            expiry::warn(&appliance, &mut told.lock());
        })
        .await;
    }
}

/// Once a minute, off the threads that serve: what was destroyed leaves the files.
async fn keep_clean(appliance: Arc<Appliance>) {
    let mut minute = tokio::time::interval(Duration::from_secs(60));
    loop {
        minute.tick().await;
        let appliance = appliance.clone();
        // A panic in it is logged by its own report and must not end the minutes to come.
        let _ = tokio::task::spawn_blocking(move || appliance.partitions.clean()).await;
    }
}

/// No core dumps and no reading by other processes of the user; files private; as many descriptors as allowed.
fn protect_process() -> Result<(), Error> {
    let failed = |error| {
        Error::environment(format!("core dumps cannot be forbidden, and one would hold keys: {error}"))
    };
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .map_err(failed)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let files = rustix::process::getrlimit(Resource::Nofile);
    // Better with more, and no fault without.
    let _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files });
    Ok(())
}

fn start_log(config: &Config) -> Result<Scribe, Error> {
    let (writer, scribe) = log::start(std::io::stderr())
        .map_err(|error| Error::environment(format!("threads cannot be started: {error}")))?;
    let filter = EnvFilter::new(&config.log_level);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    // A second subscriber in one process is a test's doing and changes nothing.
    let _ = match config.log_format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    Ok(scribe)
}
