//! Sends every message back to where it came from.
//!
//!     cargo run -p quorate-zmtp --example echo -- 127.0.0.1:5555

use std::{env, error::Error};

use quorate_zmtp::{Config, Event, Listener, Spawner};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:5555".to_owned())
        .parse()?;
    let (endpoint, mut events) = Listener::bind(Config::default(), address, Spawner::current())?;
    println!("echoing on {}", endpoint.local_address());
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(Event::Connected { id, peer_type, remote }) => {
                    println!("{id}: {peer_type:?} at {remote}");
                }
                Some(Event::Message { id, payload }) => {
                    if let Err(error) = endpoint.send(id, payload) {
                        println!("{id}: not echoed: {error}");
                    }
                }
                Some(Event::Disconnected { id, reason }) => println!("{id}: {reason}"),
                None => return Ok(()),
            },
            _ = tokio::signal::ctrl_c() => {
                endpoint.shutdown().await;
                return Ok(());
            }
        }
    }
}
