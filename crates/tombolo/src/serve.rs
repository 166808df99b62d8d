//! `tombolo serve`: the gateway alone.

use std::io::Write as _;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::ServeArgs;
use crate::config::Config;
use crate::data_folder;
use crate::gateway::{self, Gateway, Listeners};
use crate::listen::Listener;
use crate::logs;
use crate::stop::StopSignals;

/// Reads the configuration; none if looking at it was all that was asked.
///
/// # Errors
///
/// [`Mistakes`](crate::config::Mistakes) with everything that is wrong with it.
pub(crate) fn prepare(args: ServeArgs) -> Result<Option<Config>> {
    let mut config = Config::load(&args.config, std::env::vars(), &args.set)?;
    config.log = args.logs.over(config.log);
    let mut out = std::io::stdout().lock();
    if args.dump_config {
        let text = config
            .to_toml()
            .context("could not write the configuration")?;
        out.write_all(text.as_bytes())?;
        return Ok(None);
    }
    if args.check_config {
        writeln!(out, "{} is right", args.config.display())?;
        return Ok(None);
    }
    Ok(Some(config))
}

/// Runs the gateway until it is asked to stop. SIGHUP reads the certificate again.
///
/// # Errors
///
/// When it can not start, or something was cut off at the end.
pub(crate) async fn run(config: Config) -> Result<()> {
    logs::start(&config.log)?;
    let admin_token = data_folder::secret_file(&config.admin.token_file)
        .context("admin.token_file: there is no token for the admin API")?;
    let mut reload = signal(SignalKind::hangup()).context("could not catch SIGHUP")?;
    let (store, keeper) = gateway::open_store(config.store.clone(), config.disk.clone()).await?;
    // From the first request on it stops in order; reading a large store may be cut off.
    let mut signals = StopSignals::catch()?;
    let gateway = Gateway::start(config, store, keeper.report(), admin_token, LISTENERS).await?;
    loop {
        tokio::select! {
            () = signals.asked() => break,
            () = keeper.failed() => break,
            _ = reload.recv() => reload_certificate(&gateway).await,
        }
    }
    tracing::info!("stopping");
    let stopped = signals.stop(gateway.stop()).await;
    keeper.close().await.and(stopped)
}

async fn reload_certificate(gateway: &Gateway) {
    if let Err(error) = gateway.reload_certificate().await {
        let error = anyhow::Error::new(error);
        tracing::error!("the certificate stays as it was: {error:#}");
    }
}

const LISTENERS: Listeners = Listeners {
    devices: Listener {
        what: "the device API",
        changed_by: "front.listen in the configuration",
    },
    admin: Listener {
        what: "the admin API",
        changed_by: "front.admin_listen in the configuration",
    },
};
