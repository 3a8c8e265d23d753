//! Stands in front of the S3 server, and decides what becomes of each request.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use crate::s3;

/// What becomes of a request.
pub enum Fate {
    Passed,
    /// It is done, and nobody hears of it.
    Unanswered,
    /// The connection is closed: nothing is done.
    Closed,
    /// It is answered with this status and this code of S3, and not done.
    Refused(&'static str, &'static str),
}

/// The head of a request.
pub struct Request(String);

impl Request {
    pub fn changes(&self) -> bool {
        ["PUT", "DELETE", "POST"].iter().any(|method| self.0.starts_with(method))
    }

    /// Whether its path has this part.
    pub fn is_about(&self, part: &str) -> bool {
        self.0.lines().next().is_some_and(|line| line.contains(part))
    }
}

pub struct Proxy {
    /// Its URL.
    pub address: String,
}

impl Proxy {
    /// It ends with the process of the tests.
    pub fn start(decide: impl Fn(&Request) -> Fate + Send + Sync + 'static) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let decide = Arc::new(decide);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let decide = decide.clone();
                std::thread::spawn(move || {
                    // A client that is gone is no matter of the proxy's.
                    let _ = one_request(client, &*decide);
                });
            }
        });
        Proxy { address }
    }
}

/// One request per connection.
fn one_request(mut client: TcpStream, decide: &dyn Fn(&Request) -> Fate) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut bytes = [0; 1 << 16];
    let (text, head, length) = loop {
        let read = client.read(&mut bytes)?;
        if read == 0 {
            return Ok(());
        }
        request.extend_from_slice(&bytes[..read]);
        if let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&request[..end]).into_owned();
            let length = text.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
            });
            break (text, end + 4, length.unwrap_or(0));
        }
    };
    while request.len() < head + length {
        let read = client.read(&mut bytes)?;
        if read == 0 {
            return Ok(());
        }
        request.extend_from_slice(&bytes[..read]);
    }
    let fate = decide(&Request(text));
    match fate {
        Fate::Closed => return Ok(()),
        Fate::Refused(status, code) => {
            let body = format!("<Error><Code>{code}</Code><Message>no</Message></Error>");
            let body = if code.is_empty() { String::new() } else { body };
            let length = body.len();
            return write!(client, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
        }
        Fate::Passed | Fate::Unanswered => {}
    }
    let mut server = TcpStream::connect(s3::endpoint().trim_start_matches("http://"))?;
    let line = request.windows(2).position(|two| two == b"\r\n").expect("a request has lines") + 2;
    server.write_all(&request[..line])?;
    server.write_all(b"Connection: close\r\n")?;
    server.write_all(&request[line..])?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    match fate {
        Fate::Unanswered => Ok(()),
        _ => client.write_all(&answer),
    }
}
