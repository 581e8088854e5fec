//! Connections to the server: TCP that notices a link that went silent, and connections that were closed while nobody
//! used them.
//!
//! The parts that a proxy or TLS adds are the library's; below them lies TCP of our own, since the library's gives
//! nobody the socket to set options of.
//!
//! # A link that goes silent
//! Left to itself, Linux sends for about 15 minutes what nobody acknowledges (tcp(7): tcp_retries2), and waits for ever
//! for an answer that does not come. Ours end after [`SILENCE`]:
//! - While bytes of ours are under way by TCP_USER_TIMEOUT (tcp(7), RFC 5482): counted from when they are first sent again,
//!   which is a moment after they were lost. A server that acknowledges them but takes none, so that nothing more can be
//!   sent, has the same time.
//! - While we only wait by keepalive (tcp(7)): asked after [`KEEPALIVE_IDLE`] without a sign and every
//!   [`KEEPALIVE_INTERVAL`] from then on; with TCP_USER_TIMEOUT it is that time, not the number of questions, that ends
//!   the connection. A server that is only slow answers these by itself, however long it takes for the rest.
//!
//! # A server that answers early
//! A server may refuse a slice before it has read all of it, and close. Then the rest cannot be sent, but the answer lies
//! in the socket: it is read, and sending stops. Where the system has thrown the answer away the request is sent again, and
//! waits for the server's word before the slice (`Expect: 100-continue`, [`crate::client::requests`]).
//!
//! # Other systems
//! On other systems only keepalive is set, which Windows gives up after ten questions, a minute in all. While bytes are under
//! way the time-out of [`crate::client`] for one write has to do.

use bigup_core::protocol::name::printable;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectProxyConnector, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, RustlsConnector,
    SocksConnector, Transport, time,
};
use ureq::{Agent, Error, Timeout, config::Config};

/// Time without traffic after which a connection is dropped. Only Linux can tell. Longer than what
/// passes on bad links and when one is replaced; shorter than anybody would wait.
pub const SILENCE: Duration = Duration::from_secs(30);

/// Time without traffic before the system asks.
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);

/// Time between two questions from then on.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// The distance of the server: the shortest time that it took to connect, which is one round trip.
#[derive(Debug)]
pub struct Distance(AtomicU64);

impl Default for Distance {
    fn default() -> Distance {
        Distance(AtomicU64::new(u64::MAX))
    }
}

impl Distance {
    fn note(&self, time: Duration) {
        self.0.fetch_min(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The shortest time so far. `None`: nobody connected yet.
    pub fn shortest(&self) -> Option<Duration> {
        Some(self.0.load(Ordering::Relaxed)).filter(|nanos| *nanos < u64::MAX).map(Duration::from_nanos)
    }
}

/// Makes agents whose connections are ours, and tell how far the server is. Each keeps one connection; with it comes the
/// number of its uses, which is 0 again with each new connection.
pub fn agents(config: Config, distance: Arc<Distance>) -> impl Fn() -> (Agent, Arc<AtomicU64>) + Send + Sync {
    let tcp = TcpConnector { distance, answered: Mutex::default() };
    let proxies = ().chain(SocksConnector::default()).chain(ConnectProxyConnector::default());
    // They share what it learns: the address that answers, certificates that were read, sessions of TLS.
    let connector = Arc::new(proxies.chain(tcp).chain(RustlsConnector::default()));
    move || {
        let uses = Arc::new(AtomicU64::new(0));
        let connector = SharedConnector { connector: Arc::clone(&connector), uses: Arc::clone(&uses) };
        (Agent::with_parts(config.clone(), connector, Names::default()), uses)
    }
}

/// The connector of several agents, as one of them has it.
#[derive(Debug)]
struct SharedConnector<C> {
    connector: Arc<C>,
    uses: Arc<AtomicU64>,
}

impl<C: Connector> Connector for SharedConnector<C> {
    type Out = C::Out;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<()>) -> Result<Option<C::Out>, Error> {
        self.uses.store(0, Ordering::Relaxed);
        self.connector.connect(details, chained)
    }
}

/// Resolves names, and says which one it could not.
#[derive(Debug, Default)]
struct Names(DefaultResolver);

/// A name cannot be resolved.
#[derive(Debug, thiserror::Error)]
#[error("the name {host} cannot be resolved ({why})")]
struct Unresolved {
    host: String,
    why: String,
}

impl Resolver for Names {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let host = printable(uri.host().unwrap_or_default());
        self.0.resolve(uri, config, timeout).map_err(|error| {
            let why = match error {
                Error::HostNotFound => "it has no address".to_owned(),
                Error::Io(error) => {
                    let text = error.to_string();
                    text.strip_prefix("failed to lookup address information: ").unwrap_or(&text).to_owned()
                }
                other => return other,
            };
            io::Error::other(Unresolved { host, why }).into()
        })
    }
}

/// The name that cannot be resolved, and the reason; `None` if `error` says something else.
pub fn unresolved(error: &Error) -> Option<String> {
    let Error::Io(error) = error else { return None };
    error.get_ref()?.downcast_ref::<Unresolved>().map(Unresolved::to_string)
}

/// The refusal of a proxy and the remedy, where the next attempt would meet the same.
pub fn refused_by_proxy(error: &Error) -> Option<String> {
    const CREDENTIALS: &str = "give them in its URL, like http://USER:PASSWORD@HOST:PORT";
    match error {
        Error::ConnectProxyFailed(said) => {
            // `proxy server responded 407/407`
            let status = said.split(|c: char| !c.is_ascii_digit()).find_map(|digits| digits.parse().ok());
            match status {
                Some(407) => Some(format!("the proxy wants a user and a password (407): {CREDENTIALS}")),
                Some(408 | 425 | 429) | None => None,
                Some(status @ 300..500) => Some(format!("the proxy does not let us through to the server ({status})")),
                Some(_) => None,
            }
        }
        // RFC 1928, section 3: none of the methods is acceptable. RFC 1929, section 2: a wrong password.
        Error::Io(error) => match error.to_string().as_str() {
            "no acceptable auth methods" | "unknown auth method" => {
                Some(format!("the proxy wants a user and a password: {CREDENTIALS}"))
            }
            "connection not allowed by ruleset" => Some("the proxy does not let us through to the server".to_owned()),
            text if text.contains("authentication") => {
                Some(format!("the proxy refuses the user and password that its URL has ({text})"))
            }
            _ => None,
        },
        _ => None,
    }
}

/// `error` in two words or three.
pub fn in_short(error: &Error) -> &'static str {
    match error {
        _ if unresolved(error).is_some() => "name unknown",
        Error::Io(error) if error.kind() == ErrorKind::ConnectionRefused => "refused",
        Error::Io(error) if matches!(error.kind(), ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable) => {
            "unreachable"
        }
        Error::Io(error) if error.kind() == ErrorKind::TimedOut => "no answer",
        Error::Io(_) => "cut off",
        Error::Timeout(_) => "no answer",
        Error::ConnectProxyFailed(_) => "proxy fails",
        _ => "no HTTP",
    }
}

/// `error` for people, without the library's prefix.
pub fn in_words(error: &Error) -> String {
    match error {
        Error::Io(error) => error.to_string(),
        Error::ConnectProxyFailed(said) => format!("the proxy does not reach it ({said})"),
        other => other.to_string(),
    }
}

/// A connection that was kept for the next request broke before any of its answer came: most likely it was closed
/// while it was not used, and the server has seen nothing of the request.
#[derive(Debug, thiserror::Error)]
#[error("{0} (on a connection that was kept)")]
struct ClosedAtRest(io::Error);

/// True if the request failed on a connection that was kept from earlier, so that a new one may do at once.
pub fn was_closed_at_rest(error: &Error) -> bool {
    matches!(error, Error::Io(error) if error.get_ref().is_some_and(|inner| inner.is::<ClosedAtRest>()))
}

/// The error of a request on a connection that was closed at rest.
#[cfg(test)]
pub fn closed_at_rest() -> Error {
    io::Error::new(ErrorKind::UnexpectedEof, ClosedAtRest(ErrorKind::UnexpectedEof.into())).into()
}

/// Makes [`Tcp`] unless a proxy gave a connection already.
#[derive(Debug)]
struct TcpConnector {
    distance: Arc<Distance>,
    /// The address that answered last.
    answered: Mutex<Option<SocketAddr>>,
}

impl<In: Transport> Connector<In> for TcpConnector {
    type Out = Either<In, Tcp>;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        if let Some(transport) = chained {
            return Ok(Some(Either::A(transport)));
        }
        let addresses = self.best_first(&details.addrs);
        let stream = connect(&addresses, details.timeout.not_zero().map(|time| *time), &self.distance)?;
        *self.answered.lock().unwrap_or_else(PoisonError::into_inner) = stream.peer_addr().ok();
        stream.set_nodelay(details.config.no_delay())?;
        if let Err(error) = watch(&stream) {
            log::debug!("a silent link is noticed late: {error}");
        }
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(Tcp {
            stream,
            buffers,
            read_timeout: None,
            write_timeout: None,
            rested: false,
            answered_early: false,
        })))
    }
}

impl TcpConnector {
    /// `addresses` with the one that answered last before the others: a dead one costs seconds, once and not with every
    /// connection.
    fn best_first(&self, addresses: &[SocketAddr]) -> Vec<SocketAddr> {
        let answered = *self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        let mut addresses = addresses.to_vec();
        addresses.sort_by_key(|address| Some(*address) != answered);
        addresses
    }
}

/// Connects to the first of these addresses that lets us. Each may take half of the time that is left, the last one
/// all.
fn connect(addresses: &[SocketAddr], time: Option<Duration>, distance: &Distance) -> Result<TcpStream, Error> {
    let began = Instant::now();
    let mut failure = Error::HostNotFound;
    for (i, address) in addresses.iter().enumerate() {
        let asked = Instant::now();
        let result = match time {
            None => TcpStream::connect(address),
            Some(time) => {
                let left = time.saturating_sub(began.elapsed());
                let share = if i + 1 < addresses.len() { left / 2 } else { left };
                TcpStream::connect_timeout(address, share.max(Duration::from_millis(1)))
            }
        };
        failure = match result {
            Ok(stream) => {
                distance.note(asked.elapsed());
                return Ok(stream);
            }
            Err(error) if error.kind() == ErrorKind::TimedOut => Error::Timeout(Timeout::Connect),
            Err(error) => error.into(),
        };
        log::debug!("{address}: {failure}");
    }
    Err(failure)
}

/// Has the system notice that nothing is heard from the other end.
#[cfg(target_os = "linux")]
fn watch(stream: &TcpStream) -> io::Result<()> {
    use nix::sys::socket::{setsockopt, sockopt};
    let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &seconds(KEEPALIVE_IDLE))?;
    setsockopt(stream, sockopt::TcpKeepInterval, &seconds(KEEPALIVE_INTERVAL))?;
    setsockopt(stream, sockopt::TcpUserTimeout, &seconds(SILENCE).saturating_mul(1000))?;
    Ok(())
}

/// Elsewhere it only asks after a silence. Windows asks ten times before it gives the connection up.
#[cfg(not(target_os = "linux"))]
fn watch(stream: &TcpStream) -> io::Result<()> {
    let questions = socket2::TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    socket2::SockRef::from(stream).set_tcp_keepalive(&questions)
}

/// A TCP connection.
struct Tcp {
    stream: TcpStream,
    buffers: LazyBuffers,
    /// The time-out that the socket has.
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
    /// It was kept for the next request, and nothing was heard since.
    rested: bool,
    /// The server answered and closed before all was sent. Nothing more is sent.
    answered_early: bool,
}

impl Tcp {
    /// `error` of reading or writing, within the time that `timeout` tells, in the library's words.
    fn failure(&self, error: io::Error, timeout: NextTimeout) -> Error {
        match error.kind() {
            ErrorKind::WouldBlock => Error::Timeout(timeout.reason),
            // The socket's own time-out on Windows; elsewhere the system gave the connection up.
            ErrorKind::TimedOut if cfg!(windows) => Error::Timeout(timeout.reason),
            ErrorKind::TimedOut => error.into(),
            _ if self.rested => io::Error::new(error.kind(), ClosedAtRest(error)).into(),
            _ => error.into(),
        }
    }
}

/// True if the other end closed the connection.
fn is_closed(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted)
}

impl Tcp {
    /// True if the server answered before it closed: then that tells more than the failure of sending. Windows throws away
    /// what came before a reset (WSAECONNRESET, 10054, and 10053).
    fn hears_answer(&mut self) -> bool {
        let input = self.buffers.input_append_buf();
        let heard = self.stream.set_nonblocking(true).and_then(|()| (&self.stream).read(input));
        let is_usable = self.stream.set_nonblocking(false).is_ok();
        if let Ok(len @ 1..) = heard
            && is_usable
        {
            self.buffers.input_appended(len);
            self.rested = false;
            self.answered_early = true;
        }
        self.answered_early
    }
}

impl Transport for Tcp {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let timeout = timeout.for_write();
        let time = time_left(timeout)?;
        if time != self.write_timeout {
            self.stream.set_write_timeout(time)?;
            self.write_timeout = time;
        }
        if self.answered_early {
            return Ok(());
        }
        match (&self.stream).write_all(&self.buffers.output()[..amount]) {
            Err(error) if is_closed(error.kind()) && self.hears_answer() => Ok(()),
            sent => sent.map_err(|error| self.failure(error, timeout)),
        }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let timeout = timeout.for_read();
        let time = time_left(timeout)?;
        if time != self.read_timeout {
            self.stream.set_read_timeout(time)?;
            self.read_timeout = time;
        }
        let input = self.buffers.input_append_buf();
        // A signal that ends a read gives the next one the whole time again; signals are few.
        let len = loop {
            match (&self.stream).read(input) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        match len {
            Ok(0) if self.rested => Err(self.failure(ErrorKind::UnexpectedEof.into(), timeout)),
            Ok(len) => {
                self.rested = false;
                self.buffers.input_appended(len);
                Ok(len > 0)
            }
            Err(error) => Err(self.failure(error, timeout)),
        }
    }

    /// True if nothing was heard: the end, an error and bytes that nobody asked for all mean that it is not to be used.
    ///
    /// The library asks before it keeps a connection and before it uses one that was kept, and at no other time.
    fn is_open(&mut self) -> bool {
        if self.answered_early {
            return false;
        }
        self.rested = true;
        let heard = self.stream.set_nonblocking(true).and_then(|()| (&self.stream).read(&mut [0]));
        let is_silent = heard.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        is_silent && self.stream.set_nonblocking(false).is_ok()
    }
}

impl fmt::Debug for Tcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tcp").field("peer", &self.stream.peer_addr().ok()).finish_non_exhaustive()
    }
}

/// The time-out that a socket gets. `None`: no time-out. A socket takes no time-out of 0.
fn time_left(timeout: NextTimeout) -> Result<Option<Duration>, Error> {
    match timeout.after {
        time::Duration::NotHappening => Ok(None),
        time::Duration::Exact(left) if left.is_zero() => Err(Error::Timeout(timeout.reason)),
        time::Duration::Exact(left) => Ok(Some(left)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    /// A server that does something with each of its connections, one after the other.
    fn serving(each: impl Fn(usize, TcpStream) + Send + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        thread::spawn(move || listener.incoming().enumerate().for_each(|(i, stream)| each(i, stream.unwrap())));
        url
    }

    /// Reads a request without a body and answers it.
    fn answer(stream: &mut TcpStream) {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            request.push(byte[0]);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap();
    }

    fn config(time: Duration) -> Config {
        Agent::config_builder().proxy(None).timeout_per_read(Some(time)).build()
    }

    /// Time for an answer that comes.
    const ENOUGH: Duration = Duration::from_secs(60);

    fn get(agent: &Agent, url: &str) -> Result<String, Error> {
        agent.get(url).call()?.body_mut().read_to_string()
    }

    #[test]
    fn connections_are_used_again() {
        let url = serving(|i, mut stream| {
            assert_eq!(i, 0, "a second connection was made");
            (0..3).for_each(|_| answer(&mut stream));
        });
        let (agent, _) = agents(config(ENOUGH), Arc::default())();
        (0..3).for_each(|_| assert_eq!(get(&agent, &url).unwrap(), "ok"));
    }

    #[test]
    fn one_closed_while_it_was_kept_is_not_used() {
        let url = serving(|_, mut stream| answer(&mut stream));
        let (agent, _) = agents(config(ENOUGH), Arc::default())();
        for _ in 0..3 {
            assert_eq!(get(&agent, &url).unwrap(), "ok");
            thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn one_closed_as_the_next_request_comes_is_told_from_one_that_never_worked() {
        // Reads of the next request as much as shows that it was sent, then closes.
        let url = serving(|i, mut stream| {
            if i == 0 {
                answer(&mut stream);
            }
            stream.read_exact(&mut [0]).unwrap();
        });
        let (agent, _) = agents(config(ENOUGH), Arc::default())();
        assert_eq!(get(&agent, &url).unwrap(), "ok");
        let kept = get(&agent, &url).unwrap_err();
        assert!(was_closed_at_rest(&kept), "{kept:?}");
        let fresh = get(&agent, &url).unwrap_err();
        assert!(!was_closed_at_rest(&fresh) && matches!(fresh, Error::Io(_)), "{fresh:?}");
    }

    #[test]
    fn a_server_that_says_nothing_times_out_and_was_not_closed() {
        let url = serving(|_, mut stream| {
            answer(&mut stream);
            thread::sleep(ENOUGH);
        });
        let (agent, _) = agents(config(Duration::from_secs(3)), Arc::default())();
        assert_eq!(get(&agent, &url).unwrap(), "ok");
        let silent = get(&agent, &url).unwrap_err();
        assert!(matches!(silent, Error::Timeout(Timeout::PerRead)), "{silent:?}");
        assert!(!was_closed_at_rest(&silent));
    }

    #[test]
    fn the_next_address_is_tried_where_one_refuses() {
        let refusing = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addresses = [refusing, listener.local_addr().unwrap()];
        let distance = Distance::default();
        assert_eq!(distance.shortest(), None);
        let stream = connect(&addresses, Some(Duration::from_secs(10)), &distance).unwrap();
        assert!(distance.shortest().is_some_and(|time| time < Duration::from_secs(10)));
        assert_eq!(stream.peer_addr().unwrap(), addresses[1]);
        let refused = connect(&addresses[..1], None, &distance).unwrap_err();
        assert!(matches!(&refused, Error::Io(e) if e.kind() == ErrorKind::ConnectionRefused), "{refused:?}");
        assert!(matches!(connect(&[], None, &distance), Err(Error::HostNotFound)));
    }

    #[test]
    fn the_address_that_answered_is_taken_first_from_then_on() {
        let [dead, alive]: [SocketAddr; 2] = ["[fd00::1]:1", "10.0.0.1:1"].map(|address| address.parse().unwrap());
        let tcp = TcpConnector { distance: Arc::default(), answered: Mutex::default() };
        assert_eq!(tcp.best_first(&[dead, alive]), [dead, alive]);
        *tcp.answered.lock().unwrap() = Some(alive);
        assert_eq!(tcp.best_first(&[dead, alive]), [alive, dead]);
        assert_eq!(tcp.best_first(&[dead]), [dead]);
    }

    #[test]
    fn a_proxy_that_says_no_is_told_from_one_that_may_say_yes_later() {
        let said =
            |status| refused_by_proxy(&Error::ConnectProxyFailed(format!("proxy server responded {status}/{status}")));
        assert!(said(407).unwrap().contains("USER:PASSWORD@HOST"));
        assert!(said(403).unwrap().contains("403"));
        for status in [408, 429, 500, 502, 503, 504] {
            assert_eq!(said(status), None, "{status}");
        }
        assert_eq!(refused_by_proxy(&Error::ConnectProxyFailed("proxy server did not respond".to_owned())), None);
        let methods = Error::Io(io::Error::other("no acceptable auth methods"));
        assert!(refused_by_proxy(&methods).unwrap().contains("password"));
        assert_eq!(refused_by_proxy(&Error::Io(ErrorKind::ConnectionRefused.into())), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_system_watches_the_link() {
        use nix::sys::socket::{getsockopt, sockopt};
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        watch(&stream).unwrap();
        assert!(getsockopt(&stream, sockopt::KeepAlive).unwrap());
        assert_eq!(getsockopt(&stream, sockopt::TcpKeepIdle).unwrap(), 10);
        assert_eq!(getsockopt(&stream, sockopt::TcpKeepInterval).unwrap(), 5);
        assert_eq!(getsockopt(&stream, sockopt::TcpUserTimeout).unwrap(), 30_000);
    }
}
