from . import (
    anatomy as anatomy,
)
from . import (
    autoencoder as autoencoder,
)
from . import (
    catalog as catalog,
)
from . import (
    demo as demo,
)
from . import (
    families as families,
)
from . import (
    noise as noise,
)
from . import (
    tiny as tiny,
)
