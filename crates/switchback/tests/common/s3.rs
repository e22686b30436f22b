//! An object store of a test's own: a real S3 server, which checks signatures, on a folder.

use std::path::Path;

/// Who may ask.
pub const ID: &str = "the-id-of-the-tests";
pub const SECRET: &str = "the-secret-of-the-tests-3b1e";

/// A running server; it ends with the process.
pub struct ObjectStore {
    pub port: u16,
}

impl ObjectStore {
    pub fn start(folder: &Path) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        listener.set_nonblocking(true).expect("sets");
        let mut builder =
            s3s::service::S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder).expect("a folder"));
        builder.set_auth(s3s::auth::SimpleAuth::from_single(ID, SECRET));
        let service = builder.build();
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                let executor = hyper_util::rt::TokioExecutor::new();
                let server = hyper_util::server::conn::auto::Builder::new(executor);
                while let Ok((socket, _)) = listener.accept().await {
                    let io = hyper_util::rt::TokioIo::new(socket);
                    let connection = server.serve_connection(io, service.clone()).into_owned();
                    tokio::spawn(async move { drop(connection.await) });
                }
            });
        });
        Self { port }
    }
}
