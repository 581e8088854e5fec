/* A service for names of hosts that ends the program which loads it, as one of another glibc may. */
#include <stdlib.h>

__attribute__((constructor)) static void loaded(void)
{
    abort();
}
