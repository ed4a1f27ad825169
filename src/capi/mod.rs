//! The C ABI: every exported function, the types behind its handles, and the boundary that no panic crosses.
