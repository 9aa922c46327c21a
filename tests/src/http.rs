//! Requests to a node's admin listener.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longer than a node itself lets a request wait.
const TIMEOUT: Duration = Duration::from_secs(40);

/// The status code and body of the answer to a GET.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    ask(address, "GET", path, &[]).await
}

/// The status code and body of the answer to a POST.
pub(crate) async fn post(address: SocketAddr, path: &str, body: &[u8]) -> Result<(u16, String)> {
    ask(address, "POST", path, body).await
}

/// HTTP/1.0, so that the body simply ends with the connection.
async fn ask(address: SocketAddr, method: &str, path: &str, body: &[u8]) -> Result<(u16, String)> {
    let length = body.len();
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        stream.write_all(body).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let answer = tokio::time::timeout(TIMEOUT, exchange)
        .await
        .with_context(|| format!("no answer from http://{address}{path}"))?
        .with_context(|| format!("{method} http://{address}{path}"))?;
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        bail!("http://{address}{path} answers something else than HTTP");
    };
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let code = code.with_context(|| format!("status line of http://{address}{path}"))?;
    Ok((code, body.to_owned()))
}
