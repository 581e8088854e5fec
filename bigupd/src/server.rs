//! Accepting connections and serving them until told to stop.

use crate::reply::Reply;
use crate::tls::Tls;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use warp::Filter;

/// Longest time to read a request's head, and to keep an idle connection. More than common proxies keep theirs, so that
/// they close first and no request meets a closing connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(75);

/// Largest buffer of a connection, in bytes: what one read from a socket can bring.
const MAX_BUFFER: usize = 512 << 10;

/// Pause after a connection could not be accepted, which is when descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `routes` on `listener`, with `tls` where there is one, until `stop` is done; running requests then have `grace` to finish.
pub async fn serve<F>(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    routes: F,
    stop: impl Future<Output = ()>,
    grace: Duration,
) where
    F: Filter<Extract = (Reply,), Error = Infallible> + Clone + Send + Sync + 'static,
    F::Future: Send,
{
    let connections = GracefulShutdown::new();
    // Dropped at the stop, which ends handshakes: no request is lost with them.
    let (open, is_open) = watch::channel(());
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        match accepted {
            Ok((stream, _peer)) => {
                let (tls, is_open) = (tls.clone(), is_open.clone());
                tokio::spawn(serve_connection(stream, tls, is_open, routes.clone(), connections.watcher()));
            }
            Err(e) => {
                log::warn!("accepting a connection: {e}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    drop(open);
    log::info!("stopping: {} connections have {} s to finish", connections.count(), grace.as_secs());
    if tokio::time::timeout(grace, connections.shutdown()).await.is_err() {
        log::warn!("some requests did not finish within {} s and are dropped; nothing stored is lost", grace.as_secs());
    }
}

async fn serve_connection<F>(
    stream: TcpStream,
    tls: Option<Arc<Tls>>,
    mut is_open: watch::Receiver<()>,
    routes: F,
    watcher: Watcher,
) where
    F: Filter<Extract = (Reply,), Error = Infallible> + Clone + Send + Sync + 'static,
    F::Future: Send,
{
    // Answers are small and must not wait for more to come. Without it they are slower, not wrong.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else { return serve_requests(stream, routes, watcher).await };
    let accepted = tokio::select! {
        accepted = tls.accept(stream) => accepted,
        _ = is_open.changed() => return,
    };
    match accepted {
        Ok(stream) => serve_requests(stream, routes, watcher).await,
        Err(e) => log::debug!("a connection ended in its handshake: {e}"),
    }
}

async fn serve_requests<S, F>(stream: S, routes: F, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    F: Filter<Extract = (Reply,), Error = Infallible> + Clone + Send + Sync + 'static,
    F::Future: Send,
{
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(MAX_BUFFER);
    let service = TowerToHyperService::new(warp::service(routes));
    if let Err(e) = watcher.watch(http.serve_connection(TokioIo::new(stream), service)).await {
        // Clients go away in many ways, and none of them matters here.
        log::debug!("a connection ended: {e}");
    }
}
