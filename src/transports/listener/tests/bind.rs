//! What can and cannot be listened on.

use std::fs;
use std::os::unix::net::UnixListener as StdUnixListener;

use super::*;

fn bind(address: &ListenAddress) -> Result<Listener, String> {
    Listener::bind(address, None, &config()).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_port_in_use_is_one_line_that_names_it() {
    let first = bind(&any_port()).unwrap();
    let taken = first.local_address().clone();
    let error = bind(&ListenAddress::Tcp(vec![tcp(&taken)])).err().unwrap();
    assert_eq!(error, format!("cannot listen on {taken}: the address is already in use"));
}

#[tokio::test]
async fn every_address_of_a_name_is_bound_to_one_port() {
    let addresses = ["127.0.0.1:0", "127.0.0.2:0"].map(|address| address.parse().unwrap());
    let listener = bind(&ListenAddress::Tcp(addresses.to_vec())).unwrap();
    let [first, second] = listener.local_addresses() else { panic!("two addresses") };
    assert_ne!(tcp(first).port(), 0);
    assert_eq!(tcp(first).port(), tcp(second).port());
    let second = tcp(second);
    let running = Running::serve(listener, Protocol::Http1, AMPLE, CancellationToken::new());
    let mut client = Client::over(TcpStream::connect(second).await.unwrap(), Protocol::Http1).await;
    assert!(client.get("/").await.is_ok());
    assert!(running.client(Protocol::Http1).await.get("/").await.is_ok());
}

#[tokio::test]
async fn an_address_this_machine_lacks_is_passed_over_but_not_if_it_is_the_only_one() {
    let absent: SocketAddr = "192.0.2.1:0".parse().unwrap();
    let present: SocketAddr = "127.0.0.1:0".parse().unwrap();
    assert_eq!(bind(&ListenAddress::Tcp(vec![absent, present])).unwrap().local_addresses().len(), 1);
    let error = bind(&ListenAddress::Tcp(vec![absent])).err().unwrap();
    assert!(error.starts_with("cannot listen on 192.0.2.1:0: "), "{error}");
}

#[tokio::test]
async fn the_any_address_of_ipv6_takes_ipv4_too() {
    let listener = bind(&ListenAddress::Tcp(vec!["[::]:0".parse().unwrap()])).unwrap();
    let port = tcp(listener.local_address()).port();
    TcpStream::connect(("127.0.0.1", port)).await.unwrap();
}

#[tokio::test]
async fn a_stale_socket_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cache.sock");
    drop(StdUnixListener::bind(&path).unwrap());
    assert!(path.exists(), "std leaves the file behind");
    let listener = bind(&ListenAddress::Unix(path.clone())).unwrap();
    assert_eq!(listener.local_address().to_string(), format!("unix:{}", path.display()));
    tokio::net::UnixStream::connect(&path).await.unwrap();
}

#[tokio::test]
async fn a_live_socket_is_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cache.sock");
    let live = StdUnixListener::bind(&path).unwrap();
    let error = bind(&ListenAddress::Unix(path.clone())).err().unwrap();
    assert_eq!(error, format!("cannot listen on unix:{}: the address is already in use", path.display()));
    drop(live);
    assert!(path.exists());
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_never_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("precious");
    fs::write(&path, "data").unwrap();
    let error = bind(&ListenAddress::Unix(path.clone())).err().unwrap();
    assert!(error.ends_with("the file exists and is not a socket"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "data");
}

#[tokio::test]
async fn a_missing_directory_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    let error = bind(&ListenAddress::Unix(missing.join("cache.sock"))).err().unwrap();
    assert!(error.ends_with(&format!("the directory {} does not exist", missing.display())), "{error}");
}

#[tokio::test]
async fn the_file_goes_with_the_listener_unless_another_took_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cache.sock");
    drop(bind(&ListenAddress::Unix(path.clone())).unwrap());
    assert!(!path.exists());

    let listener = bind(&ListenAddress::Unix(path.clone())).unwrap();
    // The old inode stays taken, so that the new file cannot be given its number.
    fs::rename(&path, directory.path().join("moved")).unwrap();
    let _successor = StdUnixListener::bind(&path).unwrap();
    drop(listener);
    assert!(path.exists());
}
