//! Identity and permissions of a request's sender. They are decided by the request alone, before any name is looked up,
//! so a 401 or 403 tells nothing of the files that exist.
//!
//! | asked | tokens.json | no tokens.json |
//! | --- | --- | --- |
//! | with a token | what it may, under its prefix; 401 if it is none | as without |
//! | with a client certificate whose name a token has | what that token may | as without |
//! | without | 401; with `allow_anonymous` see [`Access::Anonymous`] | everything where only this machine, or holders of a client's certificate, get through; with `allow_anonymous` for all; else 401 |
//!
//! If no token counted, a foreign web page is refused ([`crate::admission::origins`]): 403. A client behind a trusted
//! proxy connected to that proxy, not to this daemon. So it counts as local only by its own address, and has shown no
//! certificate.

use crate::admission::origins::{Effect, Origins};
use crate::admission::quota::Quota;
use crate::admission::thread_shares::ShareOwner;
use crate::admission::tokens::uses;
use crate::admission::tokens::{Permission, SecretHash, Token, Tokens, WatchedTokens, now};
use crate::net::client_certificate::ClientCertificate;
use crate::net::forwarded::is_forwarded;
use crate::net::listeners::Listen;
use crate::net::peer::Peer;
use crate::refusal::{Advice, Refusal};
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::native::ErrorCode;
use bigup_core::storage::data_dir::DataDir;
use bigup_core::storage::disk::is_passing;
use bigup_core::storage::spool::UploadRecord;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use warp::http::header::{AUTHORIZATION, HeaderMap};

/// The message about all tokens that do not count, for any reason.
const NO_TOKEN: &str = "the token is none of this server's, or was revoked, or has ended";

/// Shortest time between two log lines about requests that were not let in.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// Shortest time between two log lines about a proxy that lets all clients in.
const WARN_EVERY: Duration = Duration::from_secs(600);

/// Permissions of a sender.
#[derive(Clone, Debug)]
pub enum Access {
    /// Everything: no tokens are in force.
    Everything,
    /// Without a token where there are tokens, by `allow_anonymous`: permitted to push and to read, not to replace or
    /// delete, and not to go on with uploads that a token began.
    Anonymous,
    /// Permissions of this token.
    Token(Arc<Token>),
}

impl Access {
    /// Lets a client pass that is permitted to do one of `any_of` with `name`; without a name: with some names.
    ///
    /// # Errors
    /// 401 or 403, which depend on nothing but the asker and the asked.
    pub fn check(&self, any_of: &[Permission], name: Option<&FileName>) -> Result<(), Refusal> {
        let what = any_of.iter().map(Permission::to_string).collect::<Vec<_>>().join(" or ");
        match self {
            Access::Everything => Ok(()),
            Access::Anonymous if any_of.iter().any(|p| matches!(p, Permission::Push | Permission::Read)) => Ok(()),
            Access::Anonymous => Err(unauthorized(format!("without a token nobody may {what} here"))),
            Access::Token(token) => {
                let has = any_of.iter().any(|permission| token.may(*permission));
                if has && name.is_none_or(|name| self.sees(name.as_str())) {
                    return Ok(());
                }
                let whose = if name.is_some() { " for that name" } else { "" };
                let message = format!("the token {} has {}; this needs {what}{whose}", token.name, token.rights());
                Err(Refusal::new(ErrorCode::Forbidden, message))
            }
        }
    }

    /// True if `name` is one of those that it is for.
    pub fn sees(&self, name: &str) -> bool {
        match self {
            Access::Everything | Access::Anonymous => true,
            Access::Token(token) => token.prefix.covers(name),
        }
    }

    /// The folder that all its names lie in, with a slash at its end; empty if it is for all names.
    pub fn prefix(&self) -> &str {
        match self {
            Access::Everything | Access::Anonymous => "",
            Access::Token(token) => token.prefix.as_str(),
        }
    }

    /// The permitted actions, for names below its prefix.
    pub fn permissions(&self) -> Vec<Permission> {
        match self {
            Access::Everything => vec![Permission::Admin],
            Access::Anonymous => vec![Permission::Push, Permission::Read],
            Access::Token(token) => token.permissions.clone(),
        }
    }

    /// Checks that it is permitted to read all names.
    ///
    /// # Errors
    /// It is not permitted.
    pub fn check_reads_all(&self) -> Result<(), Refusal> {
        self.check(&[Permission::Read], None)?;
        match self {
            Access::Token(token) if !token.prefix.as_str().is_empty() => {
                let message = format!("the token {} has {}; this needs read of all names", token.name, token.rights());
                Err(Refusal::new(ErrorCode::Forbidden, message))
            }
            _ => Ok(()),
        }
    }

    /// Name of the token, to be written down in the uploads that it begins.
    pub fn token(&self) -> Option<&str> {
        match self {
            Access::Everything | Access::Anonymous => None,
            Access::Token(token) => Some(&token.name),
        }
    }

    /// The sender at `peer`, told apart from others by address and token. `None` if the address is not known.
    pub fn client(&self, peer: Option<IpAddr>) -> Option<String> {
        let token = self.token().map(|token| format!(" {token}")).unwrap_or_default();
        peer.map(|address| format!("{address}{token}"))
    }

    /// Checks that it is permitted to take `upload` over, whose name it is permitted to push.
    ///
    /// # Errors
    /// It is not permitted. This is no 403: the existence of an upload is no secret to a client that is permitted to
    /// push its name.
    pub fn check_take_over(&self, upload: &UploadRecord) -> Result<(), Refusal> {
        if matches!(self, Access::Anonymous) && upload.token.is_some() {
            let message = format!("the unfinished upload of {} was begun by a token: use one", upload.file_name);
            return Err(Refusal::new(ErrorCode::Conflict, message));
        }
        Ok(())
    }

    /// Checks that it is permitted to go on with `upload` as it is.
    ///
    /// # Errors
    /// It is not permitted, as for [`Access::check_take_over`].
    pub fn check_go_on(&self, upload: &UploadRecord) -> Result<(), Refusal> {
        self.check_take_over(upload)?;
        let may_replace = self.check(&[Permission::Replace], None).is_ok();
        if upload.replace && !may_replace {
            let message =
                format!("the unfinished upload of {} is to replace a file, which you may not", upload.file_name);
            return Err(Refusal::new(ErrorCode::Conflict, message));
        }
        Ok(())
    }

    /// True if its unfinished uploads have a limit of their own. If there are tokens, all clients without a token share
    /// one limit.
    pub fn counts_uploads(&self) -> bool {
        !matches!(self, Access::Everything)
    }

    /// The quota that its additions must fit into. `None` if it has no quota.
    pub fn quota(&self) -> Option<Quota> {
        let Access::Token(token) = self else { return None };
        let quota = Quota { prefix: token.prefix.clone(), bytes: token.quota, files: token.max_files };
        (quota.bytes.is_some() || quota.files.is_some()).then_some(quota)
    }
}

/// Ways to be let in other than by tokens.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Clients without a token are let in, on every address that the daemon listens on.
    pub allow_anonymous: bool,
    /// The token of the program that started this daemon for itself; it gives full access. `None` if there is no such
    /// program.
    pub owner: Option<SecretHash>,
    /// Only clients on this machine, or with a certificate, get through to the daemon.
    pub is_guarded: bool,
}

/// The check that every request passes: knows the tokens of a data folder.
pub struct Authenticator {
    tokens: WatchedTokens,
    /// If there is no tokens.json, every client that reaches the daemon passes.
    is_guarded: bool,
    allow_anonymous: bool,
    /// The token of the program that started this daemon for itself.
    owner: Option<SecretHash>,
    origins: Origins,
    /// Tokens were in force at the last request.
    in_force: AtomicBool,
    /// The last uses of tokens.
    pub uses: uses::TokenUses,
    turned_away: Mutex<TurnedAway>,
    /// Time at which the log last said that a proxy lets all clients in.
    warned: Mutex<Option<Instant>>,
}

/// Refused requests that were not logged yet.
#[derive(Default)]
struct TurnedAway {
    logged: Option<Instant>,
    since: u64,
}

impl Authenticator {
    /// The gate of a daemon on `data`.
    pub fn new(data: &DataDir, settings: Settings, origins: Origins) -> Authenticator {
        Authenticator {
            tokens: WatchedTokens::new(data.clone()),
            is_guarded: settings.is_guarded,
            allow_anonymous: settings.allow_anonymous,
            owner: settings.owner,
            origins,
            in_force: AtomicBool::new(false),
            uses: uses::TokenUses::default(),
            turned_away: Mutex::default(),
            warned: Mutex::default(),
        }
    }

    /// The web pages that are permitted to use the daemon.
    pub fn origins(&self) -> &Origins {
        &self.origins
    }

    /// Permissions of the sender of a request with these headers, and this certificate; `does` is the request's effect.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// Nothing, or the tokens cannot be read.
    pub fn enter(
        &self,
        headers: &HeaderMap,
        peer: Option<Peer>,
        certificate: Option<&ClientCertificate>,
        does: Effect,
    ) -> Result<Access, Refusal> {
        let secret = presented(headers);
        if let Some(secret) = secret
            && self.owner == Some(SecretHash::of(secret))
        {
            return Ok(Access::Everything);
        }
        let tokens = self.tokens.now().map_err(|e| match is_passing(&e) {
            true => e.into(),
            false => Refusal::new(ErrorCode::Internal, "the server cannot read its tokens; its log says why"),
        })?;
        self.in_force.store(tokens.is_some(), Ordering::Relaxed);
        // A client behind a proxy has shown nothing to this daemon.
        let certificate = certificate.filter(|_| Peer::shows_its_own(peer));
        let certified =
            certificate.zip(tokens.as_ref()).and_then(|(shown, tokens)| tokens.find_certified(shown, now()));
        let refusal = match (&tokens, secret) {
            (None, _) if self.lets_in(peer) => match self.origins.check(headers, does) {
                Ok(()) => {
                    self.warn_of_proxy(headers, peer);
                    return Ok(Access::Everything);
                }
                Err(refusal) => refusal,
            },
            (Some(tokens), Some(secret)) => match tokens.find(secret, now()) {
                Some(token) => {
                    self.uses.note(token);
                    return Ok(Access::Token(Arc::new(token.clone())));
                }
                None => unauthorized(NO_TOKEN),
            },
            (None, Some(_)) => unauthorized(NO_TOKEN),
            // A browser shows it for every web page.
            (Some(_), None) if certified.is_some() => match (self.origins.check(headers, does), certified) {
                (Ok(()), Some(token)) => {
                    self.uses.note(token);
                    return Ok(Access::Token(Arc::new(token.clone())));
                }
                (Err(refusal), _) => refusal,
                (Ok(()), None) => unauthorized("a token is needed here"),
            },
            (Some(_), None) if self.allow_anonymous => match self.origins.check(headers, does) {
                Ok(()) => return Ok(Access::Anonymous),
                Err(refusal) => refusal,
            },
            (_, None) => unauthorized("a token is needed here"),
        };
        self.log_turned_away(peer, &refusal);
        Err(refusal)
    }

    /// True if clients without a token pass where there is no tokens.json.
    fn lets_in(&self, peer: Option<Peer>) -> bool {
        let is_from_elsewhere = matches!(peer, Some(Peer::Forwarded(ip)) if ip.is_none_or(|ip| !ip.is_loopback()));
        self.allow_anonymous || (self.is_guarded && !is_from_elsewhere)
    }

    /// Logs from time to time that a proxy which is not trusted gives all clients full access.
    fn warn_of_proxy(&self, headers: &HeaderMap, peer: Option<Peer>) {
        if self.allow_anonymous || !is_forwarded(headers) || matches!(peer, Some(Peer::Forwarded(_))) {
            return;
        }
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_some_and(|at| at.elapsed() < WARN_EVERY) {
            return;
        }
        *warned = Some(Instant::now());
        let trusted = peer.map_or_else(String::new, |peer| peer.ip().map_or("unix".to_owned(), |ip| ip.to_string()));
        let peer = Peer::shown(peer);
        log::warn!(
            peer;
            "a proxy forwarded a request, and there are no tokens: everybody who reaches the proxy may do everything. Make \
             tokens with `bigupd token new NAME`, or set trusted_proxies = {trusted} to let in this machine only"
        );
    }

    /// The share of threads that the work for a request with these headers takes. Reads nothing.
    pub fn whose(&self, headers: &HeaderMap, address: Option<IpAddr>) -> ShareOwner {
        // Without tokens a client could make up a new secret for each request.
        let secret = presented(headers).filter(|_| self.in_force.load(Ordering::Relaxed));
        ShareOwner::of(secret, address)
    }

    fn log_turned_away(&self, peer: Option<Peer>, refusal: &Refusal) {
        let mut turned_away = self.turned_away.lock().unwrap_or_else(PoisonError::into_inner);
        if turned_away.logged.is_some_and(|logged| logged.elapsed() < LOG_EVERY) {
            turned_away.since += 1;
            return;
        }
        let peer = Peer::shown(peer);
        let from = if peer.is_empty() { "" } else { &format!(" from {peer}") };
        let others = match std::mem::take(&mut turned_away.since) {
            0 => String::new(),
            since => format!(", and {since} others before"),
        };
        log::warn!(peer; "a request{from} was not let in{others}: {}", refusal.facts);
        turned_away.logged = Some(Instant::now());
    }
}

/// Checks that a daemon over `data_dir` is permitted to listen at `listen`. Reads the tokens.
///
/// # Errors
/// All clients could upload, or the tokens cannot be read.
pub fn check_listen(data_dir: &Path, listen: &Listen, settings: Settings) -> Result<(), String> {
    let tokens = match DataDir::open(data_dir) {
        Ok(data) => Tokens::read(&data).map_err(|e| e.to_string())?,
        // The daemon will make it, or report why it cannot.
        Err(_) => None,
    };
    if settings.allow_anonymous || settings.is_guarded || tokens.is_some_and(|tokens| !tokens.is_empty()) {
        return Ok(());
    }
    Err(format!(
        "listening on {} lets anybody who reaches it upload: make a token with `bigupd token new NAME --data-dir {}`, \
         set tls_client_ca to ask for certificates, or allow_anonymous = yes if that is meant",
        listen,
        data_dir.display()
    ))
}

fn unauthorized(why: impl Into<String>) -> Refusal {
    Refusal::new(ErrorCode::Unauthorized, why).advising(Advice::SendToken)
}

/// The token that a request carries (RFC 6750, section 2.1; the scheme in any case: RFC 9110, section 11.1). Other
/// schemes are for other programs, like a proxy.
fn presented(headers: &HeaderMap) -> Option<&str> {
    headers.get_all(AUTHORIZATION).iter().find_map(|value| {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::tokens::Prefix;
    use crate::config::Config;
    use crate::net::tls::TlsFiles;
    use bigup_core::protocol::plan::Plan;
    use warp::http::header::HeaderValue;

    fn may_listen(config: &Config) -> Result<(), String> {
        check_listen(&config.data_dir, &config.listen, config.access())
    }

    const ALL: [Permission; 4] = [Permission::Push, Permission::Read, Permission::Replace, Permission::Admin];

    struct Fixture {
        _dir: tempfile::TempDir,
        data: DataDir,
        config: Config,
    }

    impl Fixture {
        fn new() -> Fixture {
            let dir = tempfile::tempdir().unwrap();
            let data = DataDir::create(dir.path()).unwrap();
            Fixture { config: Config::defaults(dir.path().to_owned()), _dir: dir, data }
        }

        fn listening_elsewhere() -> Fixture {
            let fixture = Fixture::new();
            Fixture { config: Config { listen: "0.0.0.0:8888".parse().unwrap(), ..fixture.config }, ..fixture }
        }

        fn add(&self, name: &str) {
            let new = token(name, &[Permission::Push], "");
            assert!(Tokens::update(&self.data, |tokens| Ok(tokens.add(new))).unwrap());
        }

        /// The access that this header gives: `*` for everything, `?` without a token, else the token; or the status.
        fn enters(&self, authorization: &str) -> Result<String, u16> {
            let mut headers = HeaderMap::new();
            if !authorization.is_empty() {
                headers.insert(AUTHORIZATION, HeaderValue::from_str(authorization).unwrap());
            }
            match Authenticator::new(&self.data, self.config.access(), self.config.origins()).enter(
                &headers,
                None,
                None,
                Effect::Looks,
            ) {
                Ok(Access::Everything) => Ok("*".to_owned()),
                Ok(Access::Anonymous) => Ok("?".to_owned()),
                Ok(Access::Token(token)) => Ok(token.name.clone()),
                Err(refusal) => Err(refusal.status().as_u16()),
            }
        }
    }

    /// Its secret is its name.
    fn token(name: &str, permissions: &[Permission], prefix: &str) -> Token {
        Token {
            name: name.to_owned(),
            hash: Some(SecretHash::of(name)),
            certificate: None,
            prefix: Prefix::try_from(prefix.to_owned()).unwrap(),
            permissions: permissions.to_vec(),
            quota: None,
            max_files: None,
            uploads: None,
            uploads_begun: 0,
            created: 0,
            expires: None,
        }
    }

    fn with(permissions: &[Permission], prefix: &str) -> Access {
        Access::Token(Arc::new(token("t", permissions, prefix)))
    }

    fn name(text: &str) -> FileName {
        FileName::new(text).unwrap()
    }

    #[test]
    fn who_enters_depends_on_the_tokens_and_where_we_listen() {
        let (here, elsewhere) = (Fixture::new(), Fixture::listening_elsewhere());
        assert_eq!((here.enters(""), here.enters("Bearer x")), (Ok("*".to_owned()), Ok("*".to_owned())));
        assert_eq!((elsewhere.enters(""), elsewhere.enters("Bearer x")), (Err(401), Err(401)));
        for fixture in [&here, &elsewhere] {
            fixture.add("one");
            assert_eq!((fixture.enters(""), fixture.enters("Bearer two")), (Err(401), Err(401)));
            for header in ["Bearer one", "bearer one", "BEARER  one "] {
                assert_eq!(fixture.enters(header), Ok("one".to_owned()), "{header}");
            }
            for header in ["one", "Bearer", "Bearer ", "Basic one", "Bearerone", "Bearer one one", "Bearer One"] {
                assert_eq!(fixture.enters(header), Err(401), "{header}");
            }
            Tokens::update(&fixture.data, |tokens| Ok(tokens.remove("one"))).unwrap();
            assert_eq!((fixture.enters(""), fixture.enters("Bearer one")), (Err(401), Err(401)), "all are revoked");
        }
    }

    #[test]
    fn whom_a_proxy_asks_for_is_let_in_by_its_own_address_alone() {
        let f = Fixture::new();
        let tls = TlsFiles { cert: "c".into(), key: "k".into(), client_ca: Some("ca".into()), client_crl: None };
        let certified = Config { listen: "0.0.0.0:8888".parse().unwrap(), tls: Some(tls), ..f.config.clone() };
        let by_socket = Config { listen: "unix:/s".parse().unwrap(), ..f.config.clone() };
        let open = Config { allow_anonymous: true, ..certified.clone() };
        let enters = |config: &Config, peer| {
            Authenticator::new(&f.data, config.access(), config.origins())
                .enter(&HeaderMap::new(), Some(peer), None, Effect::Changes)
                .is_ok()
        };
        let forwarded = |ip: &str| Peer::Forwarded(Some(ip.parse().unwrap()));
        for config in [&f.config, &certified, &by_socket] {
            assert!(enters(config, Peer::Tcp("127.0.0.1:1".parse().unwrap())) && enters(config, Peer::Unix));
            assert!(enters(config, forwarded("127.0.0.1")) && enters(config, forwarded("::1")));
            assert!(!enters(config, forwarded("203.0.113.7")) && !enters(config, Peer::Forwarded(None)));
        }
        assert!(enters(&open, forwarded("203.0.113.7")) && enters(&open, Peer::Forwarded(None)));
    }

    #[test]
    fn whoever_lets_anybody_in_says_so() {
        let fixture = Fixture::listening_elsewhere();
        let open = Fixture { config: Config { allow_anonymous: true, ..fixture.config.clone() }, ..fixture };
        assert_eq!((open.enters(""), open.enters("Bearer x")), (Ok("*".to_owned()), Ok("*".to_owned())));
        open.add("one");
        assert_eq!((open.enters(""), open.enters("Basic x")), (Ok("?".to_owned()), Ok("?".to_owned())));
        assert_eq!((open.enters("Bearer one"), open.enters("Bearer x")), (Ok("one".to_owned()), Err(401)));
    }

    #[test]
    fn the_owner_of_a_daemon_may_do_everything_and_nobody_else() {
        let fixture = Fixture::new();
        fixture.add("one");
        let own = Fixture { config: Config { owner: Some(SecretHash::of("me")), ..fixture.config.clone() }, ..fixture };
        assert_eq!((own.enters("Bearer me"), own.enters("Bearer one")), (Ok("*".to_owned()), Ok("one".to_owned())));
        assert_eq!((own.enters("Bearer you"), own.enters("")), (Err(401), Err(401)));
    }

    #[test]
    fn where_we_may_listen_depends_on_tokens_and_certificates() {
        assert_eq!(may_listen(&Fixture::new().config), Ok(()));
        let f = Fixture::listening_elsewhere();
        let refused = may_listen(&f.config).unwrap_err();
        assert!(refused.contains("bigupd token new") && refused.contains("allow_anonymous"), "{refused}");
        assert_eq!(may_listen(&Config { allow_anonymous: true, ..f.config.clone() }), Ok(()));
        let tls = |client_ca| Some(TlsFiles { cert: "c".into(), key: "k".into(), client_ca, client_crl: None });
        assert_eq!(may_listen(&Config { tls: tls(Some("ca".into())), ..f.config.clone() }), Ok(()));
        assert!(may_listen(&Config { tls: tls(None), ..f.config.clone() }).is_err());
        f.add("one");
        assert_eq!(may_listen(&f.config), Ok(()));
        Tokens::update(&f.data, |tokens| Ok(tokens.remove("one"))).unwrap();
        assert!(may_listen(&f.config).is_err(), "all are revoked");
        std::fs::write(f.data.tokens_json(), "{").unwrap();
        assert!(may_listen(&f.config).unwrap_err().contains("tokens.json"));
    }

    #[test]
    fn a_token_may_what_it_has_below_its_prefix() {
        for has in ALL {
            for wanted in ALL {
                let access = with(&[has], "a/");
                let may = has == wanted || has == Permission::Admin;
                assert_eq!(access.check(&[wanted], Some(&name("a/b"))).is_ok(), may, "{has} {wanted}");
                assert_eq!(access.check(&[wanted], None).is_ok(), may, "{has} {wanted}");
                let refused = |other| access.check(&[wanted], Some(&name(other))).unwrap_err();
                assert_eq!(refused("a").status().as_u16(), 403);
                assert_eq!((refused("ab"), refused("b/a/b")), (refused("a"), refused("a")));
            }
        }
        assert!(with(&[Permission::Push], "").check(&[Permission::Read, Permission::Push], None).is_ok());
        for wanted in ALL {
            assert!(Access::Everything.check(&[wanted], Some(&name("x"))).is_ok());
            let may = matches!(wanted, Permission::Push | Permission::Read);
            assert_eq!(Access::Anonymous.check(&[wanted], Some(&name("x"))).is_ok(), may, "{wanted}");
        }
        assert_eq!(Access::Anonymous.check(&[Permission::Replace], None).unwrap_err().status().as_u16(), 401);
    }

    #[test]
    fn an_upload_is_gone_on_with_by_who_may_do_what_it_is_to_do() {
        let plain = UploadRecord::begin(name("a/b"), Plan::new(Some(3), None, None).unwrap(), None);
        let of_token = UploadRecord { token: Some("other".to_owned()), ..plain.clone() };
        let replacing = UploadRecord { replace: true, ..of_token.clone() };
        let (push, replace) = (with(&[Permission::Push], ""), with(&[Permission::Push, Permission::Replace], ""));
        let go_on = |access: &Access| [&plain, &of_token, &replacing].map(|upload| access.check_go_on(upload).is_ok());
        let take_over =
            |access: &Access| [&plain, &of_token, &replacing].map(|upload| access.check_take_over(upload).is_ok());
        assert_eq!((go_on(&Access::Everything), take_over(&Access::Everything)), ([true; 3], [true; 3]));
        assert_eq!((go_on(&replace), take_over(&replace)), ([true; 3], [true; 3]));
        // Taking over ends that the upload replaces anything.
        assert_eq!((go_on(&push), take_over(&push)), ([true, true, false], [true; 3]));
        assert_eq!(
            (go_on(&Access::Anonymous), take_over(&Access::Anonymous)),
            ([true, false, false], [true, false, false])
        );
    }
}
