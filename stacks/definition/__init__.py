"""What a stack is: settings, services and the rendering of its files. Pure: nothing here touches the machine."""
