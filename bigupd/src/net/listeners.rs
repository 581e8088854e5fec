//! The sockets for incoming connections: a socket of the daemon's own, or those that systemd holds for it
//! (systemd.socket(5), sd_listen_fds(3)). The latter stay open while the daemon is restarted; clients that connect
//! meanwhile wait and are not refused.
//!
//! A socket in the file system (unix(7)) is made under another name and renamed, so that it has its permissions and
//! takes connections as soon as it is there. The rename replaces a socket that a killed daemon left; a socket with a
//! listener is not replaced.

use crate::net::peer::Peer;
use listenfd::ListenFd;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::sockopt::{AcceptConn, SndBuf};
use nix::sys::socket::{Backlog, getsockopt, listen, setsockopt};
use socket2::SockRef;
use std::fmt;
use std::fs::{File, Permissions};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net as unix;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};

/// Connections that wait in the kernel to be accepted.
const BACKLOG: u16 = 4096;

/// Bytes of a response that the kernel takes from the daemon before they are sent (tcp(7), TCP_NOTSENT_LOWAT): a reader's
/// pace shows only as they become fewer. Bytes that are sent and not acknowledged do not count, so a long line is filled.
const UNSENT: u32 = 64 << 10;

/// The same for a socket in the file system, which has one buffer; the kernel doubles it (socket(7), SO_SNDBUF).
const SEND_BUFFER: usize = 64 << 10;

/// Suffix of a file system socket's path while the socket is made.
const UNDER_WAY: &str = ".new";

/// Longest path of a socket, in bytes, that the system takes (unix(7)).
const MAX_PATH: usize = 107;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// At this address and port.
    Tcp(SocketAddr),
    /// At a socket of this path, which is absolute.
    Unix(PathBuf),
}

impl Listen {
    /// True if only this machine's own programs get through.
    pub fn is_local(&self) -> bool {
        match self {
            Listen::Tcp(address) => address.ip().is_loopback(),
            Listen::Unix(_) => true,
        }
    }

    /// The same as an address for clients, where the `scheme` is that of TCP.
    pub fn url(&self, scheme: &str) -> String {
        match self {
            Listen::Tcp(address) => format!("{scheme}://{address}"),
            Listen::Unix(_) => self.to_string(),
        }
    }
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Listen {
        Listen::Tcp(address)
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Listen, String> {
        let Some(path) = text.strip_prefix("unix:") else {
            return text.parse().map(Listen::Tcp).map_err(|_| {
                let text = bigup_core::protocol::name::quoted(text);
                format!("{text} is no address with a port, like 127.0.0.1:8888 or [::1]:8888, and not unix:PATH")
            });
        };
        let most = MAX_PATH - UNDER_WAY.len();
        match (path.starts_with('/'), path.len()) {
            (true, len) if len <= most => Ok(Listen::Unix(path.into())),
            (true, len) => Err(format!("the path of a socket has at most {most} bytes, and this one has {len}")),
            (false, _) => Err(format!("{} is no absolute path", bigup_core::protocol::name::quoted(path))),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => address.fmt(f),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Listening sockets, at least one.
#[derive(Debug)]
pub struct Listeners(Vec<Listener>);

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, Option<Made>),
}

impl From<TcpListener> for Listeners {
    fn from(listener: TcpListener) -> Listeners {
        Listeners(vec![Listener::Tcp(listener)])
    }
}

impl Listeners {
    /// Listens there. `mode` are the permissions of a socket in the file system.
    ///
    /// # Errors
    /// As the system gives them; another process listens there already; or something else is at the path.
    pub fn bind(listen: &Listen, mode: u32) -> io::Result<Listeners> {
        match listen {
            Listen::Tcp(address) => bind_tcp(*address).map(Listeners::from),
            Listen::Unix(path) => bind_unix(path, mode).map(|listener| Listeners(vec![listener])),
        }
    }

    /// Where they listen.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn addresses(&self) -> io::Result<Vec<Listen>> {
        let each = self.0.iter().map(|listener| match listener {
            Listener::Tcp(listener) => listener.local_addr().map(Listen::Tcp),
            Listener::Unix(_, Some(made)) => Ok(Listen::Unix(made.path.clone())),
            Listener::Unix(listener, None) => listener.local_addr().map(|address| unix_place(address.as_pathname())),
        });
        each.collect()
    }

    /// Accepts a connection by any of them.
    ///
    /// # Errors
    /// As the system gives them.
    pub async fn accept(&self) -> io::Result<(Socket, Peer)> {
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

impl Listener {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Socket, Peer)>> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, address) = ready!(listener.poll_accept(cx))?;
                // Answers are small and must not wait for more to come. Without it they are slower, not wrong.
                let _ = stream.set_nodelay(true);
                Poll::Ready(Ok((Socket::Tcp(stream), Peer::Tcp(address))))
            }
            Listener::Unix(listener, _) => {
                let (stream, _) = ready!(listener.poll_accept(cx))?;
                // It does not inherit its listener's.
                let _ = setsockopt(&stream, SndBuf, &SEND_BUFFER);
                Poll::Ready(Ok((Socket::Unix(stream), Peer::Unix)))
            }
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A daemon that starts again takes its port back at once; no two can have it.
    socket.set_reuseaddr(true)?;
    // Accepted sockets inherit it.
    SockRef::from(&socket).set_tcp_notsent_lowat(UNSENT)?;
    socket.bind(address)?;
    socket.listen(u32::from(BACKLOG))
}

/// A socket in the file system that this process made. It goes with this, unless another one has its place by then.
#[derive(Debug)]
struct Made {
    path: PathBuf,
    inode: (u64, u64),
}

impl Drop for Made {
    fn drop(&mut self) {
        let Ok(_lock) = lock_folder_of(&self.path) else { return };
        if inode_of(&self.path).is_ok_and(|inode| inode == self.inode) {
            // A socket that stays is replaced by the next daemon.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn inode_of(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Keeps other daemons from making or removing a socket in the folder of `path`.
fn lock_folder_of(path: &Path) -> io::Result<Flock<File>> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let folder = File::open(folder).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", folder.display())))?;
    Flock::lock(folder, FlockArg::LockExclusive).map_err(|(_, e)| e.into())
}

fn bind_unix(path: &Path, mode: u32) -> io::Result<Listener> {
    let _lock = lock_folder_of(path)?;
    check_replaceable(path)?;
    let mut new = path.as_os_str().to_owned();
    new.push(UNDER_WAY);
    let new = PathBuf::from(new);
    // A killed daemon left it; a daemon that makes one now waits for our lock.
    if std::fs::symlink_metadata(&new).is_ok_and(|metadata| metadata.file_type().is_socket()) {
        std::fs::remove_file(&new)?;
    }
    let listener = unix::UnixListener::bind(&new)?;
    let made = Made { path: path.to_owned(), inode: inode_of(&new)? };
    std::fs::set_permissions(&new, Permissions::from_mode(mode))?;
    let listener = UnixListener::from_std(fit_unix(listener)?)?;
    std::fs::rename(&new, path)?;
    Ok(Listener::Unix(listener, Some(made)))
}

/// Checks that a socket is permitted to take the place of `path`.
fn check_replaceable(path: &Path) -> io::Result<()> {
    let metadata = match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata?,
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something that is no socket is there"));
    }
    match unix::UnixStream::connect(path) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(e) => Err(e),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another program listens there")),
    }
}

fn unix_place(path: Option<&Path>) -> Listen {
    // A socket without a path is abstract (unix(7)); its name is of no use.
    Listen::Unix(path.map_or_else(PathBuf::new, Path::to_owned))
}

/// A connection.
#[derive(Debug)]
pub enum Socket {
    /// By an address.
    Tcp(TcpStream),
    /// By the file system.
    Unix(UnixStream),
}

impl Socket {
    /// Waits for a first byte and leaves it where it is. `None` if it cannot be told beforehand.
    ///
    /// # Errors
    /// As the system gives them.
    pub async fn peek(&self) -> io::Result<Option<u8>> {
        let Socket::Tcp(stream) = self else { return Ok(None) };
        let mut first = [0];
        let got = stream.peek(&mut first).await?;
        Ok(first[..got].first().copied())
    }

    /// Ready once it can be written to.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Tcp(stream) => stream.poll_write_ready(cx),
            Socket::Unix(stream) => stream.poll_write_ready(cx),
        }
    }

    /// Tries a call that may find the socket not ready (`WouldBlock`).
    ///
    /// # Errors
    /// As `call` gives them.
    pub fn try_io<T>(&self, interest: Interest, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self {
            Socket::Tcp(stream) => stream.try_io(interest, call),
            Socket::Unix(stream) => stream.try_io(interest, call),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(stream) => stream.as_fd(),
            Socket::Unix(stream) => stream.as_fd(),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Socket::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Socket::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Socket::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Socket::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Sockets that systemd passed to this process; mostly there are none.
#[derive(Debug, Default)]
pub struct InheritedSockets(Vec<InheritedSocket>);

#[derive(Debug)]
enum InheritedSocket {
    Tcp(std::net::TcpListener),
    Unix(unix::UnixListener),
}

impl InheritedSocket {
    /// The `i`th one that was passed, with the backlog and the buffers of a socket of our own.
    fn take(from: &mut ListenFd, i: usize) -> io::Result<InheritedSocket> {
        match from.take_tcp_listener(i) {
            Ok(socket) => fit(socket.expect("each is taken once")).map(InheritedSocket::Tcp),
            Err(no_tcp) => match from.take_unix_listener(i) {
                Ok(Some(socket)) => fit_unix(socket).map(InheritedSocket::Unix),
                _ => Err(no_tcp),
            },
        }
    }

    fn place(&self) -> io::Result<Listen> {
        match self {
            InheritedSocket::Tcp(socket) => socket.local_addr().map(Listen::Tcp),
            InheritedSocket::Unix(socket) => socket.local_addr().map(|address| unix_place(address.as_pathname())),
        }
    }
}

impl InheritedSockets {
    /// Takes them over. No child inherits them. Call it once, before there are threads: it removes their variables from
    /// the environment.
    ///
    /// # Errors
    /// A socket is no listening socket of TCP or the file system.
    pub fn take() -> Result<InheritedSockets, String> {
        let mut from = ListenFd::from_env();
        let sockets = (0..from.len()).map(|i| {
            let socket = InheritedSocket::take(&mut from, i);
            socket.map_err(|e| format!("socket {} of those that systemd passes cannot be used: {e}", i + 1))
        });
        sockets.collect::<Result<_, _>>().map(InheritedSockets)
    }

    /// Where most get through to the daemon: an address that is not this machine's own, if there is any. `None` if
    /// nothing was passed.
    pub fn most_exposed(&self) -> Option<Listen> {
        let places: Vec<Listen> = self.0.iter().filter_map(|socket| socket.place().ok()).collect();
        places.iter().find(|place| !place.is_local()).or(places.first()).cloned()
    }

    /// Listeners for connections: these, or if there are none a socket of the daemon's own, as [`Listeners::bind`]
    /// makes it.
    ///
    /// # Errors
    /// As there.
    pub fn or_bind(self, listen: &Listen, mode: u32) -> io::Result<Listeners> {
        if self.0.is_empty() {
            return Listeners::bind(listen, mode);
        }
        let listeners = self.0.into_iter().map(|socket| match socket {
            InheritedSocket::Tcp(socket) => TcpListener::from_std(socket).map(Listener::Tcp),
            InheritedSocket::Unix(socket) => {
                UnixListener::from_std(socket).map(|listener| Listener::Unix(listener, None))
            }
        });
        listeners.collect::<io::Result<_>>().map(Listeners)
    }
}

/// Makes a socket as [`Listeners::bind`] makes them.
fn fit(socket: std::net::TcpListener) -> io::Result<std::net::TcpListener> {
    socket.set_nonblocking(true)?;
    fit_listening(&socket)?;
    SockRef::from(&socket).set_tcp_notsent_lowat(UNSENT)?;
    Ok(socket)
}

fn fit_unix(socket: unix::UnixListener) -> io::Result<unix::UnixListener> {
    socket.set_nonblocking(true)?;
    fit_listening(&socket)?;
    Ok(socket)
}

fn fit_listening(socket: &impl AsFd) -> io::Result<()> {
    if !getsockopt(socket, AcceptConn)? {
        return Err(io::Error::other("it does not listen; bigupd accepts connections itself (Accept=no)"));
    }
    Ok(listen(socket, Backlog::new(BACKLOG)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(addresses: &[&str]) -> InheritedSockets {
        let socket = |address| fit(std::net::TcpListener::bind(address).unwrap()).map(InheritedSocket::Tcp).unwrap();
        InheritedSockets(addresses.iter().map(socket).collect())
    }

    fn tcp(listen: &Listen) -> SocketAddr {
        let Listen::Tcp(address) = listen else { panic!("{listen} is no address") };
        *address
    }

    #[test]
    fn the_most_exposed_address_counts() {
        let exposed = |addresses: &[&str]| passed(addresses).most_exposed().map(|place| tcp(&place).ip().to_string());
        assert_eq!(exposed(&[]), None);
        assert_eq!(exposed(&["127.0.0.1:0", "127.0.0.2:0"]).unwrap(), "127.0.0.1");
        assert_eq!(exposed(&["127.0.0.1:0", "0.0.0.0:0", "127.0.0.2:0"]).unwrap(), "0.0.0.0");
        let dir = tempfile::tempdir().unwrap();
        let socket = unix::UnixListener::bind(dir.path().join("s")).unwrap();
        let mut both = passed(&["0.0.0.0:0"]);
        both.0.insert(0, InheritedSocket::Unix(socket));
        assert_eq!(tcp(&both.most_exposed().unwrap()).ip().to_string(), "0.0.0.0");
    }

    #[tokio::test]
    async fn connections_come_by_all_sockets() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let mut passed = passed(&["127.0.0.1:0", "127.0.0.1:0"]);
        passed.0.push(InheritedSocket::Unix(fit_unix(unix::UnixListener::bind(&path).unwrap()).unwrap()));
        let listeners = passed.or_bind(&"127.0.0.1:0".parse().unwrap(), 0).unwrap();
        let addresses = listeners.addresses().unwrap();
        assert_eq!(addresses[2], Listen::Unix(path.clone()));
        for address in addresses[..2].iter().rev() {
            let client = TcpStream::connect(tcp(address)).await.unwrap();
            let (_, peer) = listeners.accept().await.unwrap();
            assert_eq!(peer, Peer::Tcp(client.local_addr().unwrap()));
        }
        let _client = UnixStream::connect(&path).await.unwrap();
        assert_eq!(listeners.accept().await.unwrap().1, Peer::Unix);
    }

    #[tokio::test]
    async fn a_passed_socket_is_as_one_of_our_own() {
        let any = "127.0.0.1:0".parse().unwrap();
        let own = Listeners::bind(&any, 0).unwrap();
        let passed = passed(&["127.0.0.1:0"]).or_bind(&any, 0).unwrap();
        let unsent = |listeners: &Listeners| match &listeners.0[0] {
            Listener::Tcp(listener) => SockRef::from(listener).tcp_notsent_lowat().unwrap(),
            Listener::Unix(..) => unreachable!("it was an address"),
        };
        assert_eq!((unsent(&own), unsent(&passed)), (UNSENT, UNSENT));
    }

    #[test]
    fn a_socket_that_does_not_listen_is_refused() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let connected = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let refused = fit(std::net::TcpListener::from(std::os::fd::OwnedFd::from(connected))).unwrap_err();
        assert!(refused.to_string().contains("Accept=no"), "{refused}");
    }

    #[tokio::test]
    async fn a_socket_in_the_file_system_has_its_mode_and_goes_with_its_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bigup.sock");
        let listen: Listen = format!("unix:{}", path.display()).parse().unwrap();
        let listeners = Listeners::bind(&listen, 0o620).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o620);
        assert_eq!(listeners.addresses().unwrap(), std::slice::from_ref(&listen));
        let refused = Listeners::bind(&listen, 0o600).unwrap_err();
        assert!(refused.to_string().contains("another program"), "{refused}");
        drop(listeners);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_left_over_socket_is_replaced_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("bigup.sock"), dir.path().join("file"));
        // As killed daemons leave them.
        drop(unix::UnixListener::bind(&path).unwrap());
        drop(unix::UnixListener::bind(dir.path().join("bigup.sock.new")).unwrap());
        let listen = Listen::Unix(path.clone());
        let first = Listeners::bind(&listen, 0o660).unwrap();
        // Another one took its place by force: the first leaves that one alone.
        std::fs::remove_file(&path).unwrap();
        let second = Listeners::bind(&listen, 0o660).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        std::fs::write(&other, "mine").unwrap();
        let refused = Listeners::bind(&Listen::Unix(other.clone()), 0o660).unwrap_err();
        assert!(refused.to_string().contains("no socket"), "{refused}");
        assert_eq!(std::fs::read(&other).unwrap(), b"mine");
    }

    #[test]
    fn places_are_read() {
        for text in ["127.0.0.1:8888", "[::1]:0", "unix:/run/bigup.sock"] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
        let long = format!("unix:/{}", "x".repeat(103));
        for (text, says) in [("here", "no address"), ("unix:a", "absolute"), ("unix:", "absolute"), (&long, "104")] {
            let mistake = text.parse::<Listen>().unwrap_err();
            assert!(mistake.contains(says), "{mistake}");
        }
        assert!(long[..long.len() - 1].parse::<Listen>().is_ok());
    }
}
