//! `netlaunch firewall reload --follow`: reloads whenever firewalld has reloaded, started or ended.
//!
//! The process listens on the bus before its first reload, so that it misses no event. Each reload
//! reads network.conf and nwfilter.conf again. If a reload fails, the error is reported and the
//! next event tries again.
//!
//! The process blocks no signal: the programs that a reload runs would inherit the mask, and
//! dnsmasq would keep it as long as it runs. A signal may interrupt a reload; the next reload
//! completes the work.

use std::path::Path;

use super::Failure;
use super::environment::Environment;
use super::ready;
use super::reload::reload;
use crate::firewall::Watch;

/// Reloads now and after every event, until the bus ends the connection.
///
/// # Errors
/// The bus cannot be used, or it ended the connection.
pub(super) async fn follow(config_dir: &Path, environment: &Environment) -> Result<(), Failure> {
    let mut watch = Watch::open(&environment.system_bus()).await?;
    reload_and_report(config_dir, environment).await;
    // Ready means that the process listens: networks may start later.
    if let Err(error) = ready::notify(environment.notify_socket()) {
        tracing::warn!("cannot tell the service manager that netlaunch follows firewalld: {error}");
    }
    loop {
        let event = watch.next().await?;
        tracing::debug!("{event}");
        reload_and_report(config_dir, environment).await;
    }
}

async fn reload_and_report(config_dir: &Path, environment: &Environment) {
    match reload(config_dir, environment).await {
        Ok(notes) => notes.iter().for_each(|note| tracing::info!("{note}")),
        Err(error) => tracing::error!("{error}"),
    }
}
