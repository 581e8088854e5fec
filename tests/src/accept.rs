//! A listener on a port of its own, until it is dropped.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Listens, and gives each connection away.
pub struct Accept {
    url: String,
    stop: Arc<AtomicBool>,
}

impl Accept {
    /// Listens on a free port of this machine alone. `serve` gets the connections, one after the other.
    ///
    /// # Panics
    /// There is no free port.
    pub fn start(mut serve: impl FnMut(TcpStream) + Send + 'static) -> Accept {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let stop = Arc::new(AtomicBool::new(false));
        let is_asked = Arc::clone(&stop);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if is_asked.load(Ordering::Relaxed) {
                    return;
                }
                // A connection that ended before it was accepted needs nothing.
                client.into_iter().for_each(&mut serve);
            }
        });
        Accept { url, stop }
    }

    /// The URL of its address.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Accept {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // The thread waits for a connection.
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
    }
}
