//! Listening sockets, TCP and Unix, behind one face.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::either::Either;

use super::{BindError, BoundAddress, Peer};

/// Connections that the kernel keeps until they are accepted (it may allow fewer).
const BACKLOG: u16 = 1024;

/// An accepted connection, not yet spoken on.
pub(super) type Stream = Either<TcpStream, UnixStream>;

/// One socket that clients can connect to.
pub(super) struct ListeningSocket {
    kind: Kind,
    address: BoundAddress,
    /// Removes the file of a Unix socket together with the socket.
    file: Option<SocketFile>,
}

enum Kind {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl ListeningSocket {
    /// Binds exactly `address`; `[::]` takes IPv4 too, and becomes `0.0.0.0` on a machine without IPv6. Where the system can do so,
    /// it ends a connection of which something that was sent has not been acknowledged for `patience`.
    pub(super) fn bind_tcp(address: SocketAddr, patience: Duration) -> Result<Self, BindError> {
        let any_address = address.is_ipv6() && address.ip().is_unspecified();
        let bound = match listen_tcp(address, patience) {
            Err(error) if any_address && is_absent(&error) => {
                listen_tcp(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())), patience)
            }
            bound => bound,
        };
        let (listener, address) = bound.map_err(|cause| refused(BoundAddress::Tcp(address), cause))?;
        Ok(Self { kind: Kind::Tcp(listener), address: BoundAddress::Tcp(address), file: None })
    }

    /// Binds `path`, in place of a socket that nobody listens on, if there is one.
    pub(super) fn bind_unix(path: &Path) -> Result<Self, BindError> {
        let address = BoundAddress::Unix(path.to_owned());
        remove_stale(path)?;
        let bound = listen_unix(path).and_then(|listener| Ok((listener, SocketFile::at(path)?)));
        match bound {
            Ok((listener, file)) => Ok(Self { kind: Kind::Unix(listener), address, file: Some(file) }),
            Err(cause) => Err(refused(address, cause)),
        }
    }

    pub(super) fn address(&self) -> &BoundAddress {
        &self.address
    }

    pub(super) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Stream, Peer)>> {
        match &self.kind {
            Kind::Tcp(listener) => listener
                .poll_accept(cx)
                .map_ok(|(stream, peer)| (Either::Left(without_delay(stream)), Peer::Tcp(peer))),
            Kind::Unix(listener) => {
                listener.poll_accept(cx).map_ok(|(stream, _)| (Either::Right(stream), Peer::Unix))
            }
        }
    }

    /// Closes the socket, and hands over the connections that clients had made by then.
    ///
    /// It asks the kernel itself, since tokio may not have heard of the last ones yet. No more are taken than fit
    /// into the backlog, or a stream of new clients would keep the socket open.
    pub(super) fn close(self) -> Vec<(Stream, Peer)> {
        drop(self.file);
        match self.kind {
            Kind::Tcp(listener) => listener.into_std().map(|listener| {
                drain(|| {
                    let (stream, peer) = listener.accept()?;
                    stream.set_nonblocking(true)?;
                    Ok((Either::Left(without_delay(TcpStream::from_std(stream)?)), Peer::Tcp(peer)))
                })
            }),
            Kind::Unix(listener) => listener.into_std().map(|listener| {
                drain(|| {
                    let (stream, _) = listener.accept()?;
                    stream.set_nonblocking(true)?;
                    Ok((Either::Right(UnixStream::from_std(stream)?), Peer::Unix))
                })
            }),
        }
        .unwrap_or_default()
    }
}

fn drain<T>(mut accept: impl FnMut() -> io::Result<T>) -> Vec<T> {
    let mut accepted = Vec::new();
    for _ in 0..=BACKLOG {
        match accept() {
            Ok(connection) => accepted.push(connection),
            Err(error) if is_of_connection(&error) => {}
            Err(_) => break,
        }
    }
    accepted
}

/// Whether `accept` failed for the one connection that is gone now, and may be called again at once.
pub(super) fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Whether binding failed because this machine does not have such an address.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
        || error.raw_os_error() == Some(EAFNOSUPPORT)
}

/// Linux's number for an address family that the kernel was built or started without.
const EAFNOSUPPORT: i32 = 97;

fn refused(address: BoundAddress, cause: io::Error) -> BindError {
    if cause.kind() == io::ErrorKind::AddrInUse {
        BindError::InUse { address }
    } else {
        BindError::Refused { address, cause }
    }
}

fn without_delay(stream: TcpStream) -> TcpStream {
    // It fails only where the client is gone already, which the first read will tell.
    stream.set_nodelay(true).ok();
    stream
}

fn listen_tcp(address: SocketAddr, patience: Duration) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // Every connection inherits it.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(patience))?;
    #[cfg(not(target_os = "linux"))]
    let _ = patience;
    socket.bind(&address.into())?;
    socket.listen(i32::from(BACKLOG))?;
    socket.set_nonblocking(true)?;
    let listener = TcpListener::from_std(socket.into())?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

fn listen_unix(path: &Path) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(i32::from(BACKLOG))?;
    socket.set_nonblocking(true)?;
    UnixListener::from_std(socket.into())
}

/// Clears the way for a new socket at `path`: removes a socket there if nobody listens on it, and nothing else.
fn remove_stale(path: &Path) -> Result<(), BindError> {
    let address = || BoundAddress::Unix(path.to_owned());
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return check_directory(path),
        Err(cause) => return Err(refused(address(), cause)),
    };
    if !found.file_type().is_socket() {
        return Err(BindError::NotASocket { path: path.to_owned() });
    }
    match connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|cause| refused(address(), cause))
        }
        Err(cause) if cause.kind() == io::ErrorKind::PermissionDenied => Err(refused(address(), cause)),
        // Connected, or kept from it by a full backlog or another type of socket: it is somebody's.
        _ => Err(BindError::InUse { address: address() }),
    }
}

fn check_directory(path: &Path) -> Result<(), BindError> {
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() && !directory.is_dir() => {
            Err(BindError::NoDirectory { path: path.to_owned(), directory: directory.to_owned() })
        }
        _ => Ok(()),
    }
}

/// Tries whether somebody listens at `path`, without waiting for them.
fn connect(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)
}

/// The file of a Unix socket; removed when dropped, unless another one has taken its place.
struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: identity(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "the socket's file could not be removed");
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}
