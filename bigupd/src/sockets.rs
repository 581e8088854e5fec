//! The sockets that connections come in by: one of our own, or those that systemd holds for the daemon (systemd.socket(5),
//! sd_listen_fds(3)). The latter stay open while the daemon is restarted; who connects meanwhile waits and is not refused.

use listenfd::ListenFd;
use nix::sys::socket::sockopt::{AcceptConn, SndBuf};
use nix::sys::socket::{Backlog, getsockopt, listen, setsockopt};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::Poll;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Connections that wait in the kernel to be accepted.
const BACKLOG: u16 = 4096;

/// What the kernel holds of an answer that is not read yet, in bytes; it doubles it (socket(7), SO_SNDBUF). Answers are
/// small, and a reader's pace is told only as its buffer empties.
const SEND_BUFFER: u32 = 64 << 10;

/// Listening sockets, at least one.
#[derive(Debug)]
pub struct Listeners(Vec<TcpListener>);

impl From<TcpListener> for Listeners {
    fn from(listener: TcpListener) -> Listeners {
        Listeners(vec![listener])
    }
}

impl Listeners {
    /// Listens on `address`.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn bind(address: SocketAddr) -> io::Result<Listeners> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A daemon that starts again takes its port back at once; no two can have it.
        socket.set_reuseaddr(true)?;
        // Accepted sockets inherit it.
        socket.set_send_buffer_size(SEND_BUFFER)?;
        socket.bind(address)?;
        socket.listen(u32::from(BACKLOG)).map(Listeners::from)
    }

    /// Where they listen.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.0.iter().map(TcpListener::local_addr).collect()
    }

    /// Accepts a connection by any of them.
    ///
    /// # Errors
    /// As the system gives them.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        poll_fn(|cx| {
            let accepted = self.0.iter().find_map(|listener| match listener.poll_accept(cx) {
                Poll::Ready(accepted) => Some(accepted),
                Poll::Pending => None,
            });
            accepted.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

/// Sockets that systemd passed to this process; mostly none.
#[derive(Debug, Default)]
pub struct Passed(Vec<std::net::TcpListener>);

impl Passed {
    /// Takes them over, with the backlog and the buffers of a socket of our own. No child inherits them. To be called
    /// before there are threads, once: it takes what tells of them out of the environment.
    ///
    /// # Errors
    /// One is no listening TCP socket.
    pub fn take() -> Result<Passed, String> {
        let mut from = ListenFd::from_env();
        let sockets = (0..from.len()).map(|i| {
            let socket = from.take_tcp_listener(i).and_then(|socket| fit(socket.expect("each is taken once")));
            socket.map_err(|e| format!("socket {} of those that systemd passes cannot be used: {e}", i + 1))
        });
        sockets.collect::<Result<_, _>>().map(Passed)
    }

    /// The address by which most get through to the daemon: one that is not this machine's own, if there is any. None:
    /// nothing was passed.
    pub fn most_exposed(&self) -> Option<SocketAddr> {
        let addresses: Vec<SocketAddr> = self.0.iter().filter_map(|socket| socket.local_addr().ok()).collect();
        addresses.iter().find(|address| !address.ip().is_loopback()).or(addresses.first()).copied()
    }

    /// What to accept connections by: these, or where there are none a socket of our own on `address`.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn or_bind(self, address: SocketAddr) -> io::Result<Listeners> {
        if self.0.is_empty() {
            return Listeners::bind(address);
        }
        self.0.into_iter().map(TcpListener::from_std).collect::<io::Result<_>>().map(Listeners)
    }
}

/// Makes a socket as [`Listeners::bind`] makes them.
fn fit(socket: std::net::TcpListener) -> io::Result<std::net::TcpListener> {
    if !getsockopt(&socket, AcceptConn)? {
        return Err(io::Error::other("it does not listen; bigupd accepts connections itself (Accept=no)"));
    }
    socket.set_nonblocking(true)?;
    setsockopt(&socket, SndBuf, &(SEND_BUFFER as usize))?;
    listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(addresses: &[&str]) -> Passed {
        Passed(addresses.iter().map(|address| fit(std::net::TcpListener::bind(address).unwrap()).unwrap()).collect())
    }

    #[test]
    fn the_most_exposed_address_counts() {
        let exposed = |addresses: &[&str]| passed(addresses).most_exposed().map(|address| address.ip().to_string());
        assert_eq!(exposed(&[]), None);
        assert_eq!(exposed(&["127.0.0.1:0", "127.0.0.2:0"]).unwrap(), "127.0.0.1");
        assert_eq!(exposed(&["127.0.0.1:0", "0.0.0.0:0", "127.0.0.2:0"]).unwrap(), "0.0.0.0");
    }

    #[tokio::test]
    async fn connections_come_by_all_sockets() {
        let listeners = passed(&["127.0.0.1:0", "127.0.0.1:0"]).or_bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addresses = listeners.addresses().unwrap();
        assert_eq!(addresses.len(), 2);
        for address in addresses.iter().rev() {
            let client = TcpStream::connect(address).await.unwrap();
            let (_, peer) = listeners.accept().await.unwrap();
            assert_eq!(peer, client.local_addr().unwrap());
        }
    }

    #[tokio::test]
    async fn a_passed_socket_is_as_one_of_our_own() {
        let any = "127.0.0.1:0".parse().unwrap();
        let own = Listeners::bind(any).unwrap();
        let passed = passed(&["127.0.0.1:0"]).or_bind(any).unwrap();
        let buffer = |listeners: &Listeners| getsockopt(&listeners.0[0], SndBuf).unwrap();
        assert_eq!(buffer(&own), buffer(&passed));
    }

    #[test]
    fn a_socket_that_does_not_listen_is_refused() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let connected = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let refused = fit(std::net::TcpListener::from(std::os::fd::OwnedFd::from(connected))).unwrap_err();
        assert!(refused.to_string().contains("Accept=no"), "{refused}");
    }
}
