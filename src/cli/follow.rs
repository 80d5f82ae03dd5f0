//! `netlaunch firewall reload --follow`: putting rules and zones back whenever firewalld took them.
//!
//! It listens before it puts back for the first time, so that nothing that happens is missed, and
//! reads network.conf and nwfilter.conf anew each time. A reload that fails is reported, and the next event tries
//! again. No signal is taken: the programs that a reload runs would inherit that, dnsmasq for good,
//! and a reload that is cut short is made up for by the next one.

use std::path::Path;

use super::Failure;
use super::environment::Environment;
use super::network::NetworkError;
use super::ready;
use super::reload::reload;
use crate::firewall::Watch;

/// Puts back now and after every event, until the bus goes away.
///
/// # Errors
/// The bus cannot be used, or has gone.
pub(super) async fn follow(config_dir: &Path, environment: &Environment) -> Result<(), Failure> {
    let mut watch = Watch::open(&environment.system_bus()).await.map_err(NetworkError::from)?;
    put_back(config_dir, environment).await;
    // What is ready is the listening: networks can be started, and put right, later.
    if let Err(error) = ready::notify(environment.notify_socket()) {
        tracing::warn!("cannot tell the service manager that firewalld is followed: {error}");
    }
    loop {
        let event = watch.next().await.map_err(NetworkError::from)?;
        tracing::debug!("{event}");
        put_back(config_dir, environment).await;
    }
}

async fn put_back(config_dir: &Path, environment: &Environment) {
    match reload(config_dir, environment).await {
        Ok(notes) => notes.iter().for_each(|note| tracing::info!("{note}")),
        Err(error) => tracing::error!("{error}"),
    }
}
