/* A service for names of hosts that ends the program which loads it, as one of another glibc may. It needs no library. */
__attribute__((constructor)) static void loaded(void)
{
    __builtin_trap();
}
