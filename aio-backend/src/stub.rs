//! Functions that a backend of a test need not implement.

/// Defines functions of [`Backend`](crate::Backend) that succeed and do nothing.
macro_rules! stub {
    ($($function:ident)*) => {
        $(stub!(@ $function);)*
    };
    (@ add) => {
        fn add(&mut self, _: crate::Watched, _: crate::Token, _: crate::Interest) -> std::io::Result<()> {
            Ok(())
        }
    };
    (@ modify) => {
        fn modify(&mut self, _: crate::Token, _: crate::Interest) -> std::io::Result<()> {
            Ok(())
        }
    };
    (@ remove) => {
        fn remove(&mut self, _: crate::Token) -> std::io::Result<()> {
            Ok(())
        }
    };
    (@ wait) => {
        fn wait(&mut self, _: Option<std::time::Duration>, _: &mut crate::ReadyList) -> std::io::Result<()> {
            Ok(())
        }
    };
    (@ watched) => {
        fn watched(&self) -> usize {
            0
        }
    };
    (@ visit) => {
        fn visit(&self, _: &mut dyn FnMut(&crate::Watched, crate::Token, crate::Interest)) {}
    };
    (@ drain) => {
        fn drain(&mut self, _: &mut dyn FnMut(crate::Watched, crate::Token, crate::Interest)) {}
    };
}
pub(crate) use stub;
