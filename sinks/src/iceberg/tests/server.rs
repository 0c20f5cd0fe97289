//! An HTTP server that says what a test wants to hear.

use std::io::{BufRead, BufReader, Read, Result, Write};
use std::net::{TcpListener, TcpStream};

/// What to answer to method and path: the status, headers behind it, a bar, and the body; nothing loses the answer.
type Script = dyn FnMut(&str, &str) -> Option<String> + Send;

/// Serves one request at a time until the test's process ends, and returns the address.
pub(in crate::iceberg) fn serve(mut script: impl FnMut(&str, &str) -> Option<String> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // A client that went away has no need of an answer.
            let _ = answer(stream, &mut script);
        }
    });
    format!("http://{address}")
}

fn answer(mut stream: TcpStream, script: &mut Script) -> Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if line == "\r\n" {
            break;
        }
        head.push(line);
    }
    let length = |line: &String| line.to_lowercase().strip_prefix("content-length: ")?.trim().parse().ok();
    reader.read_exact(&mut vec![0; head.iter().find_map(length).unwrap_or(0)])?;
    let mut words = head[0].split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let Some(reply) = script(method, path) else { return Ok(()) };
    let (head, body) = reply.split_once('|').unwrap_or((&reply, ""));
    let length =
        if head.contains("Content-Length") { String::new() } else { format!("\r\nContent-Length: {}", body.len()) };
    write!(stream, "HTTP/1.1 {head}{length}\r\nConnection: close\r\n\r\n")?;
    if method == "HEAD" { Ok(()) } else { stream.write_all(body.as_bytes()) }
}
