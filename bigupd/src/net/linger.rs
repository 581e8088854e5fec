//! Reading on after the last response of a connection, so that no reset takes the response with it (RFC 9112, section
//! 9.6).
//!
//! A connection that lingers holds a socket and nothing else: its slot already belongs to another connection. The
//! number of such connections is limited; beyond the limit the one that has lingered longest is closed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

/// Longest time to read on after the last response.
const TIME: Duration = Duration::from_secs(30);

/// Longest silence meanwhile.
pub const SILENCE: Duration = Duration::from_secs(5);

/// The lingering connections.
#[derive(Clone, Debug)]
pub struct Lingering {
    most: usize,
    /// Senders that close each of them, the longest first.
    all: Arc<Mutex<VecDeque<oneshot::Sender<()>>>>,
}

impl Lingering {
    /// At most so many at once, and one at least.
    pub fn new(most: usize) -> Lingering {
        Lingering { most: most.max(1), all: Arc::default() }
    }

    /// Reads and drops all bytes that still come over a stream closed for writing, until the other side closes it too,
    /// or too many others linger.
    pub async fn linger(&self, stream: &mut (impl AsyncRead + Unpin)) {
        let sent_away = self.enter();
        tokio::select! {
            () = linger(stream) => {}
            _ = sent_away => {}
        }
    }

    /// Done once this one is to go.
    fn enter(&self) -> oneshot::Receiver<()> {
        let (send_away, sent_away) = oneshot::channel();
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that went by themselves.
        all.retain(|other| !other.is_closed());
        while all.len() >= self.most {
            // It learns of that by its end of the channel.
            all.pop_front();
        }
        all.push_back(send_away);
        sent_away
    }
}

/// The same for one that counts elsewhere.
pub async fn linger(stream: &mut (impl AsyncRead + Unpin)) {
    let deadline = Instant::now() + TIME;
    let mut forgotten = vec![0; 16 << 10];
    loop {
        let until = deadline.min(Instant::now() + SILENCE);
        match timeout_at(until, stream.read(&mut forgotten)).await {
            Ok(Ok(bytes)) if bytes > 0 => {}
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
    use tokio::task::JoinHandle;

    /// A lingering connection, and the other end of its stream.
    async fn begin(lingering: &Lingering) -> (JoinHandle<Duration>, DuplexStream) {
        let (mut ours, theirs) = duplex(100);
        let lingering = lingering.clone();
        let began = Instant::now();
        let task = tokio::spawn(async move {
            lingering.linger(&mut ours).await;
            began.elapsed()
        });
        tokio::task::yield_now().await;
        (task, theirs)
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_with_the_other_side_or_its_silence() {
        let lingering = Lingering::new(2);
        let (silent, _theirs) = begin(&lingering).await;
        let (left, theirs) = begin(&lingering).await;
        drop(theirs);
        assert_eq!((left.await.unwrap(), silent.await.unwrap()), (Duration::ZERO, SILENCE));
        let (talks, mut theirs) = begin(&lingering).await;
        tokio::spawn(async move {
            while theirs.write_u8(0).await.is_ok() {
                tokio::time::sleep(SILENCE / 2).await;
            }
        });
        assert_eq!(talks.await.unwrap(), TIME);
    }

    #[tokio::test(start_paused = true)]
    async fn of_too_many_the_longest_goes() {
        let lingering = Lingering::new(2);
        let (first, _theirs1) = begin(&lingering).await;
        let (second, _theirs2) = begin(&lingering).await;
        let (third, _theirs3) = begin(&lingering).await;
        assert_eq!(first.await.unwrap(), Duration::ZERO);
        assert_eq!((second.await.unwrap(), third.await.unwrap()), (SILENCE, SILENCE));
    }
}
