/* bcryptprimitives.dll for versions of wine that have none (before 10): Rust's standard library takes random bytes from it. */
#include <windows.h>
#include <ntsecapi.h>

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE bytes, SIZE_T len)
{
    while (len) {
        ULONG part = len > 0x10000 ? 0x10000 : (ULONG)len;
        if (!RtlGenRandom(bytes, part))
            return FALSE;
        bytes += part;
        len -= part;
    }
    return TRUE;
}
