//! Finding OpenSSL's functions in the copy that is loaded already.
//!
//! # Invariant
//! A `Library` has every function, of OpenSSL 3, from the objects that Python's `_ssl` was linked with; none of them is
//! ever unloaded, for the interpreter keeps its extension modules.
#![expect(
    unsafe_code,
    reason = "functions are looked up by name, and their types are OpenSSL's documentation's"
)]

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_ulong, c_void};
use std::sync::OnceLock;

/// `SSL`.
#[repr(C)]
pub struct Ssl {
    _opaque: [u8; 0],
}

/// `BIO`.
#[repr(C)]
pub struct Bio {
    _opaque: [u8; 0],
}

/// `BIO_METHOD`.
#[repr(C)]
pub struct BioMethod {
    _opaque: [u8; 0],
}

/// What is called when a session is made or freed (`CRYPTO_EX_new`, `CRYPTO_EX_free`): the session, its value, its
/// values, the index, and two arguments of who registered it.
pub type OnSession = unsafe extern "C" fn(*mut Ssl, *mut c_void, *mut c_void, c_int, c_long, *mut c_void);

/// `BIO_meth_set_read_ex` and `BIO_meth_set_write_ex`.
pub type BioRead = unsafe extern "C" fn(*mut Bio, *mut c_char, usize, *mut usize) -> c_int;
pub type BioWrite = unsafe extern "C" fn(*mut Bio, *const c_char, usize, *mut usize) -> c_int;
pub type BioControl = unsafe extern "C" fn(*mut Bio, c_int, c_long, *mut c_void) -> c_long;
pub type BioDestroy = unsafe extern "C" fn(*mut Bio) -> c_int;

unsafe extern "C" {
    fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
}

/// dlopen(3) on Linux: resolve now, and only what is loaded already.
const RTLD_NOW: c_int = 2;
const RTLD_NOLOAD: c_int = 4;

/// `CRYPTO_EX_INDEX_SSL`.
const EX_INDEX_SSL: c_int = 0;

/// `BIO_TYPE_SOURCE_SINK`.
const BIO_TYPE_SOURCE_SINK: c_int = 0x0400;

macro_rules! functions {
    ($(fn $name:ident($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// OpenSSL's functions, under their own names.
        #[expect(non_snake_case, reason = "OpenSSL's names")]
        pub struct Functions {
            $(pub $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Functions {
            /// Look each up in a loaded object and in what it was linked with.
            fn load(handle: *mut c_void) -> Result<Self, String> {
                Ok(Self { $($name: {
                    let name = concat!(stringify!($name), "\0");
                    // SAFETY: the handle is open, the name ends with a null.
                    let function = unsafe { dlsym(handle, name.as_ptr().cast()) };
                    if function.is_null() {
                        return Err(format!("no function {} was found", stringify!($name)));
                    }
                    // SAFETY: the function of that name has that type in every OpenSSL 3, which `find` checks
                    // before it calls another than the two that tell.
                    unsafe {
                        std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($argument),*) $(-> $result)?>(
                            function,
                        )
                    }
                },)* })
            }
        }
    };
}

functions! {
    fn OpenSSL_version(c_int) -> *const c_char;
    fn OpenSSL_version_num() -> c_ulong;
    fn ERR_peek_error() -> c_ulong;
    fn ERR_clear_error();
    fn CRYPTO_get_ex_new_index(
        c_int, c_long, *mut c_void, Option<OnSession>, Option<OnSession>, Option<OnSession>
    ) -> c_int;
    fn SSL_get_ex_data(*const Ssl, c_int) -> *mut c_void;
    fn SSL_read_ex(*mut Ssl, *mut c_void, usize, *mut usize) -> c_int;
    fn SSL_write_ex(*mut Ssl, *const c_void, usize, *mut usize) -> c_int;
    fn SSL_get_error(*const Ssl, c_int) -> c_int;
    fn SSL_pending(*const Ssl) -> c_int;
    fn SSL_set_bio(*mut Ssl, *mut Bio, *mut Bio);
    fn BIO_get_new_index() -> c_int;
    fn BIO_meth_new(c_int, *const c_char) -> *mut BioMethod;
    fn BIO_meth_set_read_ex(*mut BioMethod, BioRead) -> c_int;
    fn BIO_meth_set_write_ex(*mut BioMethod, BioWrite) -> c_int;
    fn BIO_meth_set_ctrl(*mut BioMethod, BioControl) -> c_int;
    fn BIO_meth_set_destroy(*mut BioMethod, BioDestroy) -> c_int;
    fn BIO_new(*const BioMethod) -> *mut Bio;
    fn BIO_set_data(*mut Bio, *mut c_void);
    fn BIO_get_data(*mut Bio) -> *mut c_void;
    fn BIO_set_init(*mut Bio, c_int);
    fn BIO_set_flags(*mut Bio, c_int);
    fn BIO_clear_flags(*mut Bio, c_int);
}

/// The loaded OpenSSL.
pub struct Library {
    pub(super) functions: Functions,
    /// What a session's `BIO` is made of; never freed, as the library is not.
    pub(super) method: *const BioMethod,
}

// SAFETY: the functions may be called on any thread, and the method is not changed after it was made.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

/// There is one `_ssl` in a process, and so one OpenSSL that it is linked with.
static LIBRARY: OnceLock<Library> = OnceLock::new();

impl Library {
    /// Find what the extension module in the file at `path` was linked with; `version` is how Python calls it. Where
    /// that is no OpenSSL 3, or cannot be found, the answer says so.
    pub fn find(path: &str, version: &str) -> Result<&'static Self, String> {
        if let Some(found) = LIBRARY.get() {
            return Ok(found);
        }
        let found = Self::load(path, version)?;
        let library = LIBRARY.get_or_init(|| found);
        library.observe_sessions()?;
        Ok(library)
    }

    /// What `find` has found, for what OpenSSL calls.
    pub(super) fn found() -> Option<&'static Self> {
        LIBRARY.get()
    }

    fn load(path: &str, version: &str) -> Result<Self, String> {
        let name = CString::new(path).map_err(|_| "Python's _ssl has a strange name".to_owned())?;
        // SAFETY: the path ends with a null; what is loaded already is not loaded again.
        let handle = unsafe { dlopen(name.as_ptr(), RTLD_NOW | RTLD_NOLOAD) };
        if handle.is_null() {
            return Err(format!("{path} is not loaded"));
        }
        let functions = Functions::load(handle)?;
        // SAFETY: the function takes no argument and looks at nothing.
        let number = unsafe { (functions.OpenSSL_version_num)() };
        // SAFETY: zero asks for the name and version.
        let found = unsafe { (functions.OpenSSL_version)(0) };
        // SAFETY: the answer is a constant of the library's.
        let found = unsafe { CStr::from_ptr(found) }.to_string_lossy();
        if found != version {
            return Err(format!("Python says {version}, what was found says {found}"));
        }
        if !found.starts_with("OpenSSL 3.") || number >> 28 != 3 {
            return Err(format!("{found} is not OpenSSL 3"));
        }
        Ok(Self { method: bio_method(&functions)?, functions })
    }

    /// Have `created.rs` hear of each session that is made and freed from now on.
    fn observe_sessions(&self) -> Result<(), String> {
        // SAFETY: both have the type that is asked for, and are never unloaded. The middle one, for
        // duplicates, may be missing.
        let index = unsafe {
            (self.functions.CRYPTO_get_ex_new_index)(
                EX_INDEX_SSL,
                0,
                std::ptr::null_mut(),
                Some(super::created::made),
                None,
                Some(super::created::freed),
            )
        };
        if index < 0 { Err("OpenSSL does not let its sessions be observed".to_owned()) } else { Ok(()) }
    }

    /// Forget the errors of this thread: OpenSSL wants that before each operation. There are hardly ever any, and looking
    /// is cheaper.
    pub fn clear_errors(&self) {
        // SAFETY: the function has no argument.
        if unsafe { (self.functions.ERR_peek_error)() } != 0 {
            // SAFETY: as above.
            unsafe { (self.functions.ERR_clear_error)() };
        }
    }
}

/// Describe to OpenSSL what `pipe.rs` is.
fn bio_method(functions: &Functions) -> Result<*const BioMethod, String> {
    // SAFETY: the function has no argument.
    let index = unsafe { (functions.BIO_get_new_index)() };
    let name = c"aioxide";
    // SAFETY: the name is a constant.
    let method = unsafe { (functions.BIO_meth_new)(index | BIO_TYPE_SOURCE_SINK, name.as_ptr()) };
    if index < 0 || method.is_null() {
        return Err("OpenSSL takes no new kind of BIO".to_owned());
    }
    // SAFETY: the method is new and nobody else's; the function has the type that is asked for.
    let reads = unsafe { (functions.BIO_meth_set_read_ex)(method, super::pipe::read) };
    // SAFETY: as above.
    let writes = unsafe { (functions.BIO_meth_set_write_ex)(method, super::pipe::write) };
    // SAFETY: as above.
    let controls = unsafe { (functions.BIO_meth_set_ctrl)(method, super::pipe::control) };
    // SAFETY: as above.
    let destroys = unsafe { (functions.BIO_meth_set_destroy)(method, super::pipe::destroy) };
    if [reads, writes, controls, destroys].contains(&0) {
        return Err("OpenSSL takes no new kind of BIO".to_owned());
    }
    Ok(method)
}
