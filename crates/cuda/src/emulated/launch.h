// Launches a kernel by name, as a driver does.

extern "C" int emulated_launch(const char* name, unsigned x, unsigned y, int threads, size_t bytes, void** given) {
#define POINTER(type, place) (*(type**)a[place])
#define NUMBER(place) (*(int*)a[place])
    if (strcmp(name, "backbone") == 0) {
        emulated::launch([](void** a) {
            backbone(POINTER(const Stored::Weight, 0), POINTER(const float, 1), POINTER(const float, 2), POINTER(const float, 3),
                POINTER(const int, 4), POINTER(const History, 5), POINTER(float, 6));
        }, x, y, threads, bytes, given);
    } else if (strcmp(name, "router") == 0) {
        emulated::launch([](void** a) {
            router(POINTER(const float, 0), POINTER(const float, 1), POINTER(const float, 2), POINTER(const float, 3),
                POINTER(const int, 4), POINTER(const History, 5), POINTER(float, 6));
        }, x, y, threads, bytes, given);
    } else if (strcmp(name, "score") == 0) {
        emulated::launch([](void** a) {
            score(POINTER(const float, 0), POINTER(const float, 1), POINTER(const float, 2), POINTER(float, 3), NUMBER(4),
                NUMBER(5), NUMBER(6));
        }, x, y, threads, bytes, given);
    } else if (strcmp(name, "select") == 0) {
        emulated::launch([](void** a) {
            select(POINTER(float, 0), POINTER(const int, 1), POINTER(const int, 2), POINTER(const int, 3), NUMBER(4), NUMBER(5),
                POINTER(int, 6));
        }, x, y, threads, bytes, given);
    } else {
        return 1;
    }
    return 0;
}
