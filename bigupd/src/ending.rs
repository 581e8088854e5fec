//! The end of the daemon: it drains, then it stops.
//!
//! A draining daemon serves on, and only `/readyz` says that it is about to go. So a balancer sends new requests
//! elsewhere, before connections end.

use anyhow::Context;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// The signal by which `bigupd drain` asks a daemon to drain.
pub const DRAIN: nix::sys::signal::Signal = nix::sys::signal::Signal::SIGUSR1;

/// Requests to end.
pub struct Asked {
    /// Done once the daemon is to drain, and to serve on until it is to stop.
    pub drain: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Done once the daemon is to stop.
    pub stop: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Asked {
    /// By signals, or with `until_stdin_closes` by the end of standard input. A second signal to stop ends the process at
    /// once, as if nothing handled it: its sender will not wait for the time that the first signal left.
    ///
    /// # Errors
    /// The handlers cannot be installed.
    pub fn by_signals(until_stdin_closes: bool) -> anyhow::Result<Asked> {
        let is_asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // In this order: the first signal must find it false.
            flag::register_conditional_default(signal, Arc::clone(&is_asked))
                .and_then(|_| flag::register(signal, Arc::clone(&is_asked)))
                .context("handling SIGTERM and SIGINT")?;
        }
        let mut terminate = signal(SignalKind::terminate()).context("handling SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("handling SIGINT")?;
        let mut drain = signal(SignalKind::from_raw(DRAIN as i32)).context("handling SIGUSR1")?;
        Ok(Asked {
            drain: Box::pin(async move {
                drain.recv().await;
            }),
            stop: Box::pin(async move {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                    () = stdin_closed(), if until_stdin_closes => is_asked.store(true, Ordering::Relaxed),
                }
            }),
        })
    }

    /// Waits until the daemon is to stop and has drained for `drain_time`. Sets `draining` when that begins.
    pub async fn drained(self, drain_time: Duration, draining: watch::Sender<bool>) {
        let Asked { drain, mut stop } = self;
        let only_drains = tokio::select! {
            biased;
            () = &mut stop => false,
            () = drain => true,
        };
        let began = Instant::now();
        draining.send_replace(true);
        if only_drains {
            log::info!("draining: /readyz says so; requests are served until SIGTERM");
            stop.await;
        }
        let left = drain_time.saturating_sub(began.elapsed());
        if !left.is_zero() {
            log::info!("draining for {} s more: /readyz says so; then the daemon stops", left.as_secs_f64().ceil());
            tokio::time::sleep(left).await;
        }
    }
}

async fn stdin_closed() {
    let mut stdin = tokio::io::stdin();
    let mut ignored = [0; 64];
    while matches!(stdin.read(&mut ignored).await, Ok(n) if n > 0) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};

    #[tokio::test(start_paused = true)]
    async fn a_daemon_that_is_to_stop_drains_first() {
        let (draining, is_draining) = watch::channel(false);
        let asked = Asked { drain: Box::pin(pending()), stop: Box::pin(ready(())) };
        let began = tokio::time::Instant::now();
        asked.drained(Duration::from_secs(20), draining).await;
        assert!(*is_draining.borrow());
        assert!(began.elapsed() > Duration::from_secs(19), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_daemon_that_drains_serves_until_it_is_to_stop() {
        let (draining, is_draining) = watch::channel(false);
        let asked = Asked { drain: Box::pin(ready(())), stop: Box::pin(pending()) };
        let waits = tokio::time::timeout(Duration::from_secs(1000), asked.drained(Duration::ZERO, draining)).await;
        assert!(waits.is_err() && *is_draining.borrow());
    }
}
