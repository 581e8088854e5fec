//! Connections, each lent to one request at a time: that which was used most goes first.
//!
//! An agent of the library takes the connection that rested longest. On a long line this is the worst choice:
//! - The window of a TCP connection that rests shrinks (RFC 5681, section 4.1; tcp(7), `tcp_slow_start_after_idle`). If there
//!   are more connections than senders, all take turns, and each begins slowly again.
//! - A connection that was made on a full line left slow start early, and its window stays small for seconds.
//!
//! Measured with 500 Mbit/s and 100 ms: after there had been 64 senders for a second, 32 carried 200 Mbit/s for the next six,
//! and 500 Mbit/s before. So each agent here keeps one connection.

use crate::client::connect::{self, Distance};
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use ureq::Agent;
use ureq::config::Config;

/// Time after which a connection that rests is closed. That of the library, which looks only when an agent is used.
const LONGEST_REST: Duration = Duration::from_secs(15);

/// Agents of one connection each. Shared by all threads.
pub struct Agents {
    make: Box<dyn Fn() -> (Agent, Arc<AtomicU64>) + Send + Sync>,
    /// Those that no request has.
    resting: Mutex<Vec<RestingAgent>>,
}

struct RestingAgent {
    agent: Agent,
    /// Number of requests on its connection.
    uses: Arc<AtomicU64>,
    since: Instant,
}

/// An agent that is lent to one request.
pub struct LentAgent<'a> {
    agents: &'a Agents,
    /// `None` once it went back.
    agent: Option<Agent>,
    uses: Arc<AtomicU64>,
}

impl Agents {
    /// Agents of these settings, whose connections tell `distance`.
    pub fn new(config: Config, distance: Arc<Distance>) -> Agents {
        Agents { make: Box::new(connect::agents(config, distance)), resting: Mutex::default() }
    }

    /// An agent. It must be held until all of the response was read.
    pub fn lend(&self) -> LentAgent<'_> {
        let mut resting = self.resting();
        resting.retain(|agent| agent.since.elapsed() <= LONGEST_REST);
        let uses = |agent: &RestingAgent| agent.uses.load(Ordering::Relaxed);
        let most_used = (0..resting.len()).max_by_key(|i| (uses(&resting[*i]), resting[*i].since));
        let rested = most_used.map(|i| resting.swap_remove(i));
        drop(resting);
        let (agent, uses) = rested.map_or_else(|| (self.make)(), |rested| (rested.agent, rested.uses));
        LentAgent { agents: self, agent: Some(agent), uses }
    }

    fn resting(&self) -> MutexGuard<'_, Vec<RestingAgent>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deref for LentAgent<'_> {
    type Target = Agent;

    fn deref(&self) -> &Agent {
        self.agent.as_ref().expect("it goes back only with this")
    }
}

impl Drop for LentAgent<'_> {
    fn drop(&mut self) {
        if let Some(agent) = self.agent.take() {
            self.uses.fetch_add(1, Ordering::Relaxed);
            let uses = Arc::clone(&self.uses);
            self.agents.resting().push(RestingAgent { agent, uses, since: Instant::now() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    /// A server that answers each request with the number of its connection.
    fn numbering() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                thread::spawn(move || {
                    let mut head = vec![];
                    while stream.read(&mut [0; 1]).is_ok_and(|len| len == 1) {
                        head.push(0);
                        // The head of each request has the same length.
                        if head.len() % HEAD.len() == 0 {
                            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{number}").unwrap();
                        }
                    }
                });
            }
        });
        url
    }

    const HEAD: &str = "GET / HTTP/1.1\r\nhost: 127.0.0.1:12345\r\naccept: */*\r\n\r\n";

    fn ask(agent: &Agent, url: &str) -> String {
        agent.get(url).call().unwrap().body_mut().read_to_string().unwrap()
    }

    #[test]
    fn the_connection_that_was_used_most_goes_first() {
        let url = numbering();
        let config = Agent::config_builder().proxy(None).user_agent("").accept_encoding("").build();
        let agents = Agents::new(config, Arc::default());
        // However many there were for a moment, one sender has one connection, and two have two.
        let first = agents.lend();
        assert_eq!(ask(&first, &url), "0");
        drop(first);
        let (first, second, third) = (agents.lend(), agents.lend(), agents.lend());
        assert_eq!([&first, &second, &third].map(|agent| ask(agent, &url)), ["0", "1", "2"]);
        drop(first);
        drop(third);
        drop(second);
        for _ in 0..3 {
            let again = agents.lend();
            assert_eq!(ask(&again, &url), "0");
            let beside = agents.lend();
            assert_eq!(ask(&beside, &url), "1");
        }
        assert_eq!(agents.resting().len(), 3);
    }

    #[test]
    fn connections_that_rest_for_long_are_closed() {
        let agents = Agents::new(Agent::config_builder().build(), Arc::default());
        let two = (agents.lend(), agents.lend());
        drop(two);
        agents.resting()[0].since = Instant::now().checked_sub(2 * LONGEST_REST).unwrap();
        let lent = agents.lend();
        assert_eq!((lent.uses.load(Ordering::Relaxed), agents.resting().len()), (1, 0));
    }
}
