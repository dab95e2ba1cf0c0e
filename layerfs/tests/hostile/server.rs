//! A registry on loopback that answers well unless a test says otherwise.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::common::Image;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub path: String,
    pub headers: BTreeMap<String, String>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub fn is_blob(&self) -> bool {
        self.path.contains("/blobs/")
    }

    pub fn is_manifest(&self) -> bool {
        self.path.contains("/manifests/")
    }

    /// First and last byte of `Range`.
    pub fn range(&self) -> Option<(usize, usize)> {
        let (first, last) = self.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse().unwrap(), last.parse().unwrap()))
    }
}

/// Answers, or says `false` for the good answer.
pub type Fault = dyn Fn(&Request, usize, &mut TcpStream) -> bool + Send + Sync;

pub struct Server {
    pub address: SocketAddr,
    pub log: Arc<Mutex<Vec<Request>>>,
    is_done: Arc<AtomicBool>,
}

impl Server {
    /// Serves `image` under any name. `fault` sees each request first, with the number of those of its path before.
    pub fn start(
        image: Image,
        fault: impl Fn(&Request, usize, &mut TcpStream) -> bool + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let log: Arc<Mutex<Vec<Request>>> = Arc::default();
        let is_done = Arc::new(AtomicBool::new(false));
        let shared = Arc::new((image, Box::new(fault) as Box<Fault>));
        let (all, done) = (Arc::clone(&log), Arc::clone(&is_done));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if done.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(stream), shared, log) = (stream, Arc::clone(&shared), Arc::clone(&all)) else {
                    return;
                };
                std::thread::spawn(move || serve(stream, &shared.0, shared.1.as_ref(), &log));
            }
        });
        Self { address, log, is_done }
    }

    pub fn good(image: Image) -> Self {
        Self::start(image, |_, _, _| false)
    }

    pub fn name(&self) -> String {
        format!("{}/app:v1", self.address)
    }

    pub fn count(&self, is_wanted: impl Fn(&Request) -> bool) -> usize {
        self.log.lock().unwrap().iter().filter(|request| is_wanted(request)).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_done.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

/// One request for each connection.
fn serve(stream: TcpStream, image: &Image, fault: &Fault, log: &Mutex<Vec<Request>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    let _ = reader.read_exact(&mut body);
    let request = Request { path, headers };
    let seen = {
        let mut log = log.lock().unwrap();
        let seen = log.iter().filter(|other| other.path == request.path).count();
        log.push(request.clone());
        seen
    };
    if !fault(&request, seen, &mut stream) {
        answer(&request, image, &mut stream);
    }
    let _ = stream.shutdown(std::net::Shutdown::Write);
    // Read what is left, so that closing does not reset what was sent.
    let _ = stream.set_read_timeout(Some(std::time::Duration::from_millis(200)));
    let _ = std::io::copy(&mut reader, &mut std::io::sink());
}

/// What a good registry says.
fn answer(request: &Request, image: &Image, stream: &mut TcpStream) {
    let last = request.path.rsplit('/').next().unwrap_or_default();
    let digest = if request.is_manifest() && !last.starts_with("sha256:") { &image.manifest } else { last };
    let Some(bytes) = image.blobs.get(digest) else {
        let status = if request.path.ends_with("/v2/") { 200 } else { 404 };
        return respond(
            stream,
            status,
            &[],
            br#"{"errors":[{"code":"NAME_UNKNOWN","message":"no such thing"}]}"#,
        );
    };
    let media_type = image.media_types.get(digest).map_or("application/octet-stream", String::as_str);
    match request.range().filter(|_| request.is_blob()) {
        Some((first, last)) => {
            let last = last.min(bytes.len() - 1);
            let range = format!("bytes {first}-{last}/{}", bytes.len());
            respond(stream, 206, &[("content-range", &range)], &bytes[first..=last]);
        }
        None => respond(stream, 200, &[("content-type", media_type)], bytes),
    }
}

/// Head and body with the right length.
pub fn respond(stream: &mut TcpStream, status: u16, headers: &[(&str, &str)], body: &[u8]) {
    let length = body.len().to_string();
    let mut all = vec![("content-length", length.as_str())];
    all.extend_from_slice(headers);
    head(stream, status, &all);
    let _ = stream.write_all(body);
}

pub fn head(stream: &mut TcpStream, status: u16, headers: &[(&str, &str)]) {
    let mut text = format!("HTTP/1.1 {status} Status\r\nconnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    let _ = stream.write_all(text.as_bytes());
}

/// Says nothing until the client goes away.
pub fn stall(stream: &mut TcpStream) {
    let _ = stream.set_read_timeout(Some(std::time::Duration::from_secs(60)));
    let _ = std::io::copy(stream, &mut std::io::sink());
}
